"""The pyramid against torchvision's, and its paths against what they are for."""

from functools import partial

import pytest
import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NetworkConfig, PyramidConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.pyramids import FeaturePyramid, lateral, smoothing

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
    assert_equal(ours, theirs)


def assert_equal(ours: FeaturePyramid, theirs: FeaturePyramidNetwork) -> None:
    expected = list(theirs.eval()(features()).values())
    levels = ours.levels(features())
    assert list(levels) == ["P2", "P3", "P5", "P6", "P7"][: len(expected)]  # of strides 4, 8, 32, 64, 128
    for level, other in zip(levels.values(), expected, strict=True):
        torch.testing.assert_close(level, other, rtol=0, atol=1e-6)


def with_weights_of(theirs: FeaturePyramidNetwork, **fields) -> FeaturePyramid:
    """A pyramid built as ``fields`` say, with the weights of torchvision's."""
    ours = pyramid_of(smoothing_convs=1, **fields)
    for i in range(3):
        ours.laterals[i].load_state_dict(theirs.inner_blocks[i].state_dict())
        ours.smooth[i].load_state_dict(theirs.layer_blocks[i].state_dict())
    return ours


def with_moved_statistics(module: torch.nn.Module) -> torch.nn.Module:
    """Norms that have seen something: as made, they would hide whether they are there."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, 0.5, 1.5),
                (norm.bias, -1, 1),
                (norm.running_mean, -1, 1),
                (norm.running_var, 0.5, 2),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    return module.eval()


def test_blocks_with_norms_are_those_of_torchvision():
    theirs = with_moved_statistics(
        FeaturePyramidNetwork(list(CHANNELS.values()), 8, norm_layer=torch.nn.BatchNorm2d)
    )
    block = {"order": "conv_norm_act", "lateral": "block", "norm": "batch", "activation": "none"}
    assert_equal(with_weights_of(theirs, **block), theirs)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize(
    ("activation", "layer"),
    [("relu", torch.nn.ReLU), ("leaky_relu", partial(torch.nn.LeakyReLU, 0.1)), ("none", None)],
)
def test_convolution_norm_and_activation_are_torchvisions_block(norm, activation, layer):
    of_block = {"norm_layer": torch.nn.BatchNorm2d if norm == "batch" else None, "activation_layer": layer}
    config = PyramidConfig(channels=8, order="conv_norm_act", norm=norm, activation=activation, lateral="block")
    torch.manual_seed(4)
    x = torch.randn(2, 8, 5, 7)
    for ours, size in ((lateral(8, config), 1), (smoothing(config), 3)):
        theirs = with_moved_statistics(Conv2dNormActivation(8, 8, size, **of_block))
        ours.eval().load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["conv_act_norm", "conv_norm_act"])
def test_the_order_is_that_of_its_name(order):
    layers = {"conv": torch.nn.Conv2d, "act": torch.nn.ReLU, "norm": torch.nn.BatchNorm2d}
    expected = [layers[part] for part in order.split("_")]
    config = PyramidConfig(channels=8, order=order, lateral="block")
    assert [type(layer) for layer in lateral(3, config)] == expected
    assert [type(layer) for layer in smoothing(config)] == expected


def test_without_smoothing_levels_are_the_merged_maps():
    pyramid = pyramid_of(smoothing_convs=0, norm="batch")
    assert not any(list(smooth) for smooth in pyramid.smooth)
    levels = pyramid.levels(features())
    p5 = pyramid.laterals[2](features()["F4"])
    p3 = pyramid.laterals[1](features()["F3"]) + torch.nn.functional.interpolate(p5, size=(6, 10))
    torch.testing.assert_close(levels["P5"], p5, rtol=0, atol=1e-6)
    torch.testing.assert_close(levels["P3"], p3, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("extra", "count", "block"),
    [
        ("max_pool", 1, LastLevelMaxPool()),
        ("p6p7_from_p5", 2, LastLevelP6P7(8, 8)),
        ("p6p7_from_c5", 2, LastLevelP6P7(CHANNELS["F4"], 8)),
    ],
)
@pytest.mark.parametrize("order", ["conv_act_norm", "conv_norm_act"])
def test_levels_outside_the_sums_are_those_of_torchvision(extra, count, block, order):
    theirs = FeaturePyramidNetwork(list(CHANNELS.values()), 8, extra_blocks=block)
    fields = {"order": order, "lateral": "block", "activation": "none", "extra": extra, "extra_levels": count}
    ours = with_weights_of(theirs, **fields)
    for mine, other in zip(ours.extra, block.children(), strict=True):
        mine.load_state_dict(other.state_dict())
    assert_equal(ours, theirs)


def test_p6_alone_and_two_levels_of_pooling_can_be_had():
    for extra in ("p6p7_from_c5", "max_pool"):
        for count in (1, 2):
            levels = pyramid_of(extra=extra, extra_levels=count).levels(features())
            assert list(levels)[3:] == ["P6", "P7"][:count]
    last, p6, p7 = list(levels.values())[2:]
    torch.testing.assert_close(p6, last[..., ::2, ::2], rtol=0, atol=0)
    torch.testing.assert_close(p7, last[..., ::4, ::4], rtol=0, atol=0)


@pytest.mark.parametrize("extra", ["max_pool", "p6p7_from_p5", "p6p7_from_c5"])
def test_levels_outside_the_sums_change_no_other_level(extra):
    plain = pyramid_of(paths="both")
    more = pyramid_of(paths="both", extra=extra, extra_levels=2)
    more.load_state_dict(plain.state_dict(), strict=False)
    expected, found = plain.levels(features()), more.levels(features())
    for name, level in expected.items():
        assert torch.equal(found[name], level)


def test_a_kind_of_coarser_levels_without_any_is_refused():
    with pytest.raises(ValueError, match="extra is max_pool without extra_levels; set extra_levels to 1 or 2"):
        PyramidConfig(extra="max_pool")


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
    for i, level in enumerate(found.values()):
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
    assert torch.equal(changed_top["P2"], base["P2"]) != downwards
    assert torch.equal(changed_bottom["P5"], base["P5"]) != upwards


@pytest.mark.parametrize("paths", ["top_down", "bottom_up", "both"])
def test_the_result_hears_of_every_level(paths):
    pyramid = pyramid_of(paths=paths)
    base, _ = pyramid(features())
    assert base.shape == (2, 8, *SIZES["F2"])
    for name in CHANNELS:
        assert not torch.equal(pyramid(features() | {name: features()[name] + 1})[0], base)


def test_the_result_is_the_sum_of_the_levels_at_the_size_of_the_finest():
    pyramid = pyramid_of()
    total, levels = pyramid(features())
    enlarged = [torch.nn.functional.interpolate(x, size=SIZES["F2"], mode="bilinear") for x in levels.values()]
    torch.testing.assert_close(total, sum(enlarged), rtol=0, atol=1e-5)


def test_coarser_levels_halve_what_lies_before_them():
    sizes = [tuple(level.shape[-2:]) for level in pyramid_of(extra_levels=2).levels(features()).values()]
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
