"""The pyramid against torchvision's, and its paths against what they are for."""

import pytest
import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NetworkConfig, PyramidConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.pyramids import FeaturePyramid

CHANNELS = {"F2": 6, "F3": 10, "F4": 14}
SIZES = {"F2": (12, 20), "F3": (6, 10), "F4": (3, 5)}


def features(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, width, *SIZES[name], generator=generator) for name, width in CHANNELS.items()}


def pyramid_of(**fields) -> FeaturePyramid:
    torch.manual_seed(1)
    return FeaturePyramid(CHANNELS, PyramidConfig(**({"channels": 8, "norm": "none"} | fields))).eval()


def test_the_plain_pyramid_is_that_of_torchvision():
    ours, theirs = pyramid_of(activation="none"), FeaturePyramidNetwork(list(CHANNELS.values()), 8)
    for i in range(3):
        ours.laterals[i].load_state_dict(theirs.inner_blocks[i][0].state_dict())
        ours.smooth[i][0].load_state_dict(theirs.layer_blocks[i][0].state_dict())
    expected = theirs(features())
    for level, name in zip(ours.levels(features()), CHANNELS, strict=True):
        torch.testing.assert_close(level, expected[name], rtol=0, atol=1e-6)


def test_resnet50_with_frozen_norms_and_a_pyramid_is_that_of_torchvision(tmp_path):
    torch.manual_seed(2)
    theirs = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    ).eval()
    torch.save(dict(theirs.body.state_dict()), tmp_path / "resnet50.pt")
    config = NetworkConfig(
        backbone=BackboneConfig(name="resnet50", frozen_batch_norm=True, weights=tmp_path / "resnet50.pt"),
        neck={"depth": 0},
        decoder=DecoderConfig(
            name="fpn",
            skips=["F2", "F3", "S16"],
            pyramid=PyramidConfig(channels=256, activation="none", norm="none"),
        ),
    )
    network = VertebraNetwork(config, SCHEMAS["la_lumbar"]).eval()
    pyramid = network.decoder.decoder
    for i in range(4):
        pyramid.laterals[i].load_state_dict(theirs.fpn.inner_blocks[i][0].state_dict())
        pyramid.smooth[i][0].load_state_dict(theirs.fpn.layer_blocks[i][0].state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(x)
        found = pyramid.levels(network.backbone(x))
    for i, level in enumerate(found):
        torch.testing.assert_close(level, expected[str(i)], rtol=1e-4, atol=1e-4)
    # Trainable layers counted from the end: layers 2 to 4, so neither the stem nor layer 1.
    network.freeze(-3)
    convolutions = {p.shape for name, p in theirs.body.named_parameters() if p.requires_grad}
    ours = [p for p in network.backbone.parameters() if p.requires_grad]
    assert {p.shape for p in ours} == convolutions
    assert sum(p.numel() for p in ours) == sum(p.numel() for p in theirs.body.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("paths", "downwards", "upwards"),
    [("top_down", True, False), ("bottom_up", False, True), ("both", True, True)],
)
def test_each_path_carries_what_its_name_says(paths, downwards, upwards):
    pyramid = pyramid_of(paths=paths)
    base = pyramid.levels(features())
    changed_top = pyramid.levels(features() | {"F4": features()["F4"] + 1})
    changed_bottom = pyramid.levels(features() | {"F2": features()["F2"] + 1})
    assert torch.equal(changed_top[0], base[0]) != downwards
    assert torch.equal(changed_bottom[2], base[2]) != upwards


@pytest.mark.parametrize("paths", ["top_down", "bottom_up", "both"])
def test_the_result_hears_of_every_level(paths):
    pyramid = pyramid_of(paths=paths)
    base = pyramid(features())
    assert base.shape == (2, 8, *SIZES["F2"])
    for name in CHANNELS:
        assert not torch.equal(pyramid(features() | {name: features()[name] + 1}), base)


def test_the_result_is_the_sum_of_the_levels_at_the_size_of_the_finest():
    pyramid = pyramid_of()
    levels = pyramid.levels(features())
    enlarged = [torch.nn.functional.interpolate(x, size=SIZES["F2"], mode="bilinear") for x in levels]
    torch.testing.assert_close(pyramid(features()), sum(enlarged), rtol=0, atol=1e-5)


def test_coarser_levels_halve_what_lies_before_them():
    sizes = [tuple(level.shape[-2:]) for level in pyramid_of(extra_levels=2).levels(features())]
    assert sizes == [
        (12, 20),
        (6, 10),
        (3, 5),
        (2, 3),
        (1, 2),
    ]  # half, rounded up


def test_a_backbones_maps_are_levels_and_the_result_is_enlarged_to_the_output_stride():
    decoder = DecoderConfig(name="fpn", skips=["F3"], output_stride=2)
    with torch.device("meta"):
        network = VertebraNetwork(NetworkConfig(decoder=decoder), SCHEMAS["la_lumbar"])
        assert list(network.backbone.channels) == ["F3", "F4"]
        assert network(torch.zeros(1, 1, 64, 32)).heatmap_logits.shape == (1, 22, 32, 16)


def test_a_map_that_the_backbone_lacks_is_named():
    decoder = DecoderConfig(skips=["F1", "F2"])
    with pytest.raises(ValueError, match="the backbone has no map F1, only F2, F3, S16, F4"):
        VertebraNetwork(
            NetworkConfig(backbone=BackboneConfig(name="convnext_small"), decoder=decoder), SCHEMAS["la_lumbar"]
        )


def test_published_maps_are_those_that_were_chosen():
    backbone = Backbone(BackboneConfig(name="resnet34", projection={"F1": 8, "F3": 16}))
    backbone.return_only(["F3", "F4"])
    assert backbone.channels == {"F3": 16, "F4": 512}
    assert list(backbone.eval()(torch.zeros(1, 3, 32, 32))) == ["F3", "F4"]
    assert list(backbone.projections) == ["F3"]
