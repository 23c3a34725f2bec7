"""The main network: shapes, attention, gradients, weights."""

from types import SimpleNamespace

import pytest
import torch
from tiny_job import thin_efficientnet
from torchvision.models import efficientnet_v2_s

from vertebra_kp.config.network import STRIDES, BackboneConfig, DecoderConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.schema import LossConfig
from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.models import library
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.decoders import UNetDecoder
from vertebra_kp.models.heads import HeatmapHead
from vertebra_kp.models.library import BackboneError, WeightsError
from vertebra_kp.models.losses import KeypointLoss, Targets
from vertebra_kp.models.necks import Neck, SelfAttention, TransformerEncoder, sincos_positions
from vertebra_kp.models.network import VertebraNetwork

LATERAL = SCHEMAS["la_lumbar"]  # 22 corners of 6 levels
SKIP_SUBSETS = ([], ["F2"], ["F1", "F3"], ["F1", "F2", "F3"], ["S16"], ["F1", "F2", "F3", "S16"])
# Of a 512 x 512 film: the table in Tan and Le, ICML 2021, table 4, with stage 5 at stride 1.
TAPS = {
    "F1": (24, 256, 2),
    "F2": (48, 128, 4),
    "F3": (64, 64, 8),
    "S16": (160, 32, 16),
    "F4": (256, 16, 32),
}


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)


def network_of(schema=LATERAL, *, backbone=None, neck=None, decoder=None, dropout=0.0) -> VertebraNetwork:
    torch.manual_seed(5)
    config = NetworkConfig(
        backbone=BackboneConfig(**({"stochastic_depth": 0.0} | (backbone or {}))),
        neck=NeckConfig(**({"depth": 2, "width": 32, "heads": 4, "dropout": dropout} | (neck or {}))),
        decoder=DecoderConfig(**({"channels": [40, 32, 24, 16, 8]} | (decoder or {}))),
        presence_dropout=dropout,
    )
    return VertebraNetwork(config, schema)


def films(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(7))


def loss_of(network: VertebraNetwork, film: torch.Tensor, **weights: float) -> torch.Tensor:
    """The training loss with every corner labelled, at places of its own."""
    B, _, H, W = film.shape
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(B, LATERAL.num_channels, 2, generator=generator) * torch.tensor([W, H])
    states = torch.full((B, LATERAL.num_channels), int(State.LABELLED))
    presence = torch.rand(B, LATERAL.num_levels, generator=generator).round()
    targets = Targets(points, states, presence)
    output = network(film)
    loss = KeypointLoss(HeatmapCodec(network.output_stride, 1.5, "soft_argmax"), LossConfig(**weights))
    return loss(output.heatmap_logits, output.presence_logits, targets, targets.counts())["total"]


# --- shapes ---------------------------------------------------------------------------------------------


def test_the_taps_of_a_512_film_have_the_channels_and_strides_of_the_table():
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig())
        maps = backbone(torch.zeros(1, 3, 512, 512))
    found = {name: (*feature.shape[1:], 512 // feature.shape[-1]) for name, feature in maps.items()}
    assert found == {name: (channels, side, side, stride) for name, (channels, side, stride) in TAPS.items()}
    assert backbone.channels == {name: channels for name, (channels, _, _) in TAPS.items()}


def test_the_backbone_holds_every_stage_but_not_the_classifier():
    with torch.device("meta"):
        backbone, whole = Backbone(BackboneConfig()), efficientnet_v2_s(weights=None)
    left_out = sum(p.numel() for part in (whole.features[7], whole.classifier) for p in part.parameters())
    expected = sum(p.numel() for p in whole.parameters()) - left_out
    assert sum(p.numel() for p in backbone.parameters()) == expected


@pytest.mark.parametrize("output_stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 32), (96, 32), (32, 160), (224, 96)])
@pytest.mark.parametrize("anatomy", ["ap_lumbar", "la_lumbar", "ap_whole_spine"])
def test_any_size_divisible_by_32_gives_maps_of_the_output_stride(thin, anatomy, size, output_stride):
    schema = SCHEMAS[anatomy]
    with torch.device("meta"):
        network = network_of(schema, decoder={"output_stride": output_stride})
        output = network(torch.zeros(3, 1, *size))
    maps = (size[0] // output_stride, size[1] // output_stride)
    assert output.heatmap_logits.shape == (3, schema.num_channels, *maps)
    assert output.presence_logits.shape == (3, schema.num_levels)
    assert output.attention == {}
    assert output.class_logits == {}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_film_gets_the_same_logits_alone_and_in_a_batch(thin, batch):
    network = network_of().eval()
    film = films(batch, 96, 64)
    with torch.no_grad():
        together = network(film).heatmap_logits
        alone = torch.cat([network(one[None]).heatmap_logits for one in film])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("skips", SKIP_SUBSETS, ids="+".join)
def test_only_the_chosen_skips_join_and_every_subset_keeps_the_shape(thin, skips):
    channels, previous = [40, 32, 24, 16, 8], [32, 40, 32, 24]
    joined = {"S16": 160, "F3": 64, "F2": 48, "F1": 24}
    network = network_of(decoder={"skips": skips}).eval()
    widths = [block.convs[0][0].in_channels for block in network.decoder.blocks]
    assert widths == [p + (joined[n] if n in skips else 0) for p, n in zip(previous, joined, strict=True)]
    assert network.heatmap_head.conv.in_channels == channels[3]
    assert network(films(1, 64, 32)).heatmap_logits.shape == (1, 22, 32, 16)


def test_a_skip_reaches_the_heatmaps_and_one_left_out_does_not(thin):
    decoder = UNetDecoder({"F2": 4, "S16": 4, "F4": 8}, [8, 8, 8, 8, 8], output_stride=2).eval()
    maps = {"F2": (4, 16, 24), "F3": (4, 8, 12), "S16": (4, 4, 6), "F4": (8, 2, 3)}
    features = {name: torch.randn(1, *shape) for name, shape in maps.items()}
    base, _ = decoder(features)
    assert base.shape == (1, 8, 32, 48)
    for name in maps:
        moved, _ = decoder(features | {name: features[name] + 1})
        assert torch.equal(moved, base) == (name == "F3")


def test_projections_set_the_channels_of_every_map(thin):
    widths = dict(zip(STRIDES, [8, 16, 32, 64, 96], strict=True))
    network = network_of(backbone={"projection": widths})
    maps = network.backbone(torch.rand(2, 3, 64, 32))
    assert {name: m.shape[1] for name, m in maps.items()} == widths == network.backbone.channels
    assert network(films(2, 64, 32)).heatmap_logits.shape == (2, 22, 32, 16)


# --- neck -----------------------------------------------------------------------------------------------


def settings_of(**changes) -> NeckConfig:
    settings = {"depth": 3, "width": 32, "heads": 4, "mlp_ratio": 2.0, "dropout": 0.1, "positions": "sincos"}
    return NeckConfig(**(settings | changes))


def neck_of(**changes) -> TransformerEncoder:
    torch.manual_seed(11)
    return TransformerEncoder(20, settings_of(**changes))


def test_a_neck_of_depth_0_is_the_identity_and_has_no_parameters():
    neck, features = Neck({"F3": 8, "F4": 20}, settings_of(depth=0)), {"F4": torch.randn(2, 20, 3, 5)}
    encoded, attention = neck(features, return_weights=True)
    assert encoded["F4"] is features["F4"]
    assert attention == {}
    assert neck.channels == {"F3": 8, "F4": 20}
    assert list(neck.parameters()) == []


def test_a_neck_encodes_the_maps_it_is_told_and_leaves_the_others():
    neck = Neck({"F3": 8, "S16": 12, "F4": 20}, settings_of(levels=["S16", "F4"])).eval()
    features = {"F3": torch.randn(1, 8, 8, 4), "S16": torch.randn(1, 12, 4, 2), "F4": torch.randn(1, 20, 2, 1)}
    encoded, attention = neck(features, return_weights=True)
    assert {name: m.shape[1] for name, m in encoded.items()} == neck.channels == {"F3": 8, "S16": 32, "F4": 32}
    assert encoded["F3"] is features["F3"]
    assert {name: [w.shape for w in layers] for name, layers in attention.items()} == {
        "S16": [(1, 4, 8, 8)] * 3,
        "F4": [(1, 4, 2, 2)] * 3,
    }


def test_a_neck_on_a_map_that_the_decoder_does_not_read_is_refused():
    with pytest.raises(BackboneError, match=r"levels: F1 is none of the maps that the decoder reads, F3, F4"):
        Neck({"F3": 8, "F4": 20}, settings_of(levels=["F1"]))


def test_attention_weights_come_from_every_layer_and_head_and_their_rows_sum_to_1():
    h, w = 3, 5
    _, attention = neck_of().eval()(torch.randn(2, 20, h, w), return_weights=True)
    assert [weights.shape for weights in attention] == [(2, 4, h * w, h * w)] * 3
    for weights in attention:
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, h * w), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_asking_for_the_weights_does_not_change_the_output(mode):
    neck, f4 = neck_of().train(mode), torch.randn(2, 20, 4, 3)
    torch.manual_seed(1)
    plain, none = neck(f4)
    torch.manual_seed(1)
    shown, _ = neck(f4, return_weights=True)
    assert torch.equal(plain, shown)
    assert none == []


def test_the_weights_returned_are_those_that_mix_the_values():
    torch.manual_seed(2)
    attention, tokens = SelfAttention(24, 3, dropout=0.0).eval(), torch.randn(2, 7, 24)
    mixed, weights = attention(tokens, return_weights=True)
    values = attention.qkv(tokens)[..., 48:].view(2, 7, 3, 8).transpose(1, 2)
    by_hand = attention.out((weights @ values).transpose(1, 2).reshape(2, 7, 24))
    torch.testing.assert_close(mixed, by_hand, rtol=0, atol=1e-6)


def test_sincos_positions_differ_at_every_cell_and_do_not_depend_on_the_size():
    wide = sincos_positions(32, 6, 9, torch.device("cpu"))
    cells = wide.flatten(2)[0].T
    distance = torch.cdist(cells, cells) + torch.eye(len(cells)) * 9
    assert distance.min() > 0.1
    assert torch.equal(sincos_positions(32, 4, 5, torch.device("cpu")), wide[..., :4, :5])


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_a_neck_with_positions_tells_places_apart(positions):
    # Without positions equal tokens stay equal; the learned ones start small (0.02).
    encoded, _ = neck_of(positions=positions).eval()(torch.ones(1, 20, 4, 4))
    assert encoded.flatten(2).std(dim=-1).mean() > 1e-3


def test_learned_positions_are_resized_to_other_sizes():
    neck = neck_of(positions="learned").eval()
    grid = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(1, 32, 16, 16)  # falls evenly from left to right
    neck.positions.data.copy_(grid)
    at_own_size = neck._position_map(32, 16, 16, torch.device("cpu"))
    torch.testing.assert_close(at_own_size, grid, rtol=0, atol=1e-6)
    # Cell centres of an 8-wide map lie midway between two of 16: at (2 j + 0.5) / 15 of the ramp.
    ramp = (2 * torch.arange(1, 7) + 0.5) / 15
    resized = neck._position_map(32, 4, 8, torch.device("cpu"))
    torch.testing.assert_close(resized[0, 0, 2, 1:7], ramp, rtol=0, atol=5e-3)
    assert neck(torch.randn(2, 20, 3, 7))[0].shape == (2, 32, 3, 7)


# --- gradients ------------------------------------------------------------------------------------------


def without_gradient(network: VertebraNetwork) -> list[str]:
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_a_gradient_reaches_every_parameter_of_the_whole_network():
    network = network_of()
    loss_of(network, films(2, 64, 64)).backward()
    assert without_gradient(network) == []
    still = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(
    "weights", [{"presence_weight": 0.0}, {"coordinate_weight": 0.5}, {"heatmap": "mse"}], ids=str
)
def test_a_gradient_reaches_every_parameter_under_every_weight_of_the_loss(thin, weights):
    network = network_of()
    loss_of(network, films(2, 64, 64), **weights).backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("output_stride", [1, 2, 4])
@pytest.mark.parametrize("projection", [None, {"F1": 8, "F3": 16, "F4": 24}], ids=["plain", "projected"])
@pytest.mark.parametrize("skips", SKIP_SUBSETS, ids="+".join)
def test_a_gradient_reaches_every_parameter_of_every_shape(thin, skips, projection, output_stride):
    network = network_of(
        backbone={"projection": projection},
        neck={"positions": "learned"},
        decoder={"skips": skips, "output_stride": output_stride},
    )
    loss_of(network, films(2, 64, 64)).backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_a_gradient_reaches_every_parameter_of_a_shallow_neck(thin, depth):
    network = network_of(neck={"depth": depth})
    loss_of(network, films(2, 64, 64)).backward()
    assert without_gradient(network) == []


# --- modes, state, weights ------------------------------------------------------------------------------


def test_eval_mode_is_deterministic_and_train_mode_is_not():
    network = network_of(backbone={"stochastic_depth": 0.5}, dropout=0.3)
    film = films(2, 64, 64)
    with torch.no_grad():
        network.eval()
        assert torch.equal(network(film).heatmap_logits, network(film).heatmap_logits)
        assert torch.equal(network(film).presence_logits, network(film).presence_logits)
        network.train()
        assert not torch.equal(network(film).heatmap_logits, network(film).heatmap_logits)


def test_a_state_dict_round_trip_keeps_every_logit(thin):
    network, other = network_of().eval(), network_of(neck={"dropout": 0.2}).eval()
    for parameter in other.parameters():
        parameter.data.uniform_(-1, 1)
    assert other.load_state_dict(network.state_dict()).missing_keys == []
    film = films(3, 32, 96)
    assert torch.equal(network(film).heatmap_logits, other(film).heatmap_logits)
    assert torch.equal(network(film).presence_logits, other(film).presence_logits)


def test_a_grey_film_is_normalised_as_three_equal_channels_of_imagenet(thin):
    normalised = network_of().normalise(torch.full((1, 1, 2, 2), 0.6))
    expected = [(0.6 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    torch.testing.assert_close(normalised[0, :, 0, 0], torch.tensor(expected))


def test_the_heatmap_head_computes_in_float32_under_mixed_precision():
    head, decoded = HeatmapHead(16, 5), torch.randn(1, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(decoded.bfloat16(), decoded)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(decoded.bfloat16().float(), decoded))


def test_a_local_file_gives_the_features_of_torchvisions_own_network(tmp_path):
    torch.manual_seed(13)
    original = efficientnet_v2_s(weights=None).eval()
    for module in original.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that are not the initial (0, 1)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network = network_of(backbone={"weights": tmp_path / "weights.pth"}).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = network.backbone(x)
        for name, stage in {"F1": 1, "F2": 2, "F3": 3, "S16": 5, "F4": 6}.items():
            assert torch.equal(maps[name], original.features[: stage + 1](x)), name


def broken_file(path, kind):
    if kind == "missing":
        return
    if kind == "text":
        path.write_text("these are no weights")
    elif kind == "empty":
        path.touch()
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "other network":
        torch.save(torch.nn.Linear(3, 4).state_dict(), path)
    elif kind == "other width":
        state = efficientnet_v2_s(weights=None).state_dict()
        state["features.0.0.weight"] = torch.zeros(24, 1, 3, 3)  # of grey films
        torch.save(state, path)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "list", "tensor", "other network", "other width"])
def test_a_wrong_weights_file_is_named_with_the_remedy(tmp_path, kind):
    path = tmp_path / "weights.pth"
    broken_file(path, kind)
    with pytest.raises(WeightsError, match="give a state dict of") as caught:
        network_of(backbone={"weights": path})
    assert str(path) in str(caught.value)
    assert "network.backbone.weights" in str(caught.value)


def test_imagenet_weights_that_cannot_be_fetched_name_both_ways_out(monkeypatch):
    def unreachable(**_):
        raise OSError("name resolution failed")

    offline = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=unreachable))
    monkeypatch.setattr(library, "get_model_weights", lambda name: offline)
    with pytest.raises(WeightsError, match="name resolution failed") as caught:
        network_of(backbone={"weights": "imagenet"})
    assert "network.backbone.weights=FILE" in str(caught.value)
    assert "network.backbone.weights=none" in str(caught.value)


def test_a_network_whose_checkpoint_follows_does_not_ask_for_the_backbone_weights():
    config = NetworkConfig.model_validate({"backbone": {"weights": "no_such_file.pt"}})
    with pytest.raises(WeightsError):
        VertebraNetwork(config, SCHEMAS["ap_lumbar"])
    assert VertebraNetwork(config, SCHEMAS["ap_lumbar"], load_weights=False).output_stride == 2
