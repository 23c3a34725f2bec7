"""What every network keeps, whatever it is made of: shapes, gradients, freezing, state, one answer in eval."""

import copy
import re
from pathlib import Path

import pytest
import torch
from network_rows import BACKBONES, DECODERS, PARTS, RESNET50_FPN, TINY
from tiny_job import thin_efficientnet

from vertebra_kp.config.io import load_config
from vertebra_kp.config.network import STRIDES
from vertebra_kp.config.schema import Config
from vertebra_kp.models import library
from vertebra_kp.models.network import VertebraNetwork

BASE = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
BATCH, HEIGHT, WIDTH = 3, 64, 96
ROWS = {
    **{f"backbone {name}": settings for name, settings in BACKBONES.items()},
    **{f"decoder {name}": settings for name, settings in DECODERS.items()},
    **PARTS,
    "resnet50 fpn": RESNET50_FPN,
}
PAIRS = {
    f"{backbone} + {decoder}": [*first, *second]
    for backbone, first in BACKBONES.items()
    for decoder, second in DECODERS.items()
}


def config_of(settings: list[str]) -> Config:
    return load_config(BASE, [*TINY, *settings])


def build(config: Config) -> VertebraNetwork:
    torch.manual_seed(5)
    return VertebraNetwork(config.network, config.data.keypoint_schema)


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(row, id=row[0]) for row in ROWS.items()),
        *(pytest.param(row, id=row[0], marks=pytest.mark.slow) for row in PAIRS.items()),
    ],
)
def made(request):
    """A config and its network; a thin backbone stands in where the row is not about backbones."""
    name, settings = request.param
    with pytest.MonkeyPatch.context() as patch:
        if not name.startswith("backbone") and name not in PAIRS:
            patch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
        config = config_of(settings)
        yield config, build(config)


def films(batch: int = BATCH) -> torch.Tensor:
    return torch.rand(batch, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))


def total(network: VertebraNetwork, film: torch.Tensor) -> torch.Tensor:
    output = network(film)
    terms = (output.heatmap_logits, output.presence_logits, *output.class_logits.values())
    return sum(term.float().square().mean() + term.float().mean() for term in terms)


@pytest.mark.parametrize("name", DECODERS)
def test_a_size_that_the_strides_do_not_divide_is_one_clear_error(name, monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    network = build(config_of(DECODERS[name])).eval()
    for size, padded in (((250, 128), (256, 128)), ((32, 33), (32, 64)), ((1, 31), (32, 32))):
        message = f"input_size must be divisible by 32, got {size}; pad to {padded}"
        with pytest.raises(ValueError, match=re.escape(message)):
            network(torch.zeros(1, 1, *size))


def test_shapes_follow_the_schema_and_the_output_stride(made):
    config, network = made
    schema, stride = config.data.keypoint_schema, config.network.decoder.output_stride
    with torch.no_grad():
        output = network.eval()(films(), return_attention=True)
    assert output.heatmap_logits.shape == (BATCH, schema.num_channels, HEIGHT // stride, WIDTH // stride)
    assert output.heatmap_logits.dtype == torch.float32
    assert output.presence_logits.shape == (BATCH, schema.num_levels)
    shapes = {"view": (BATCH, 2), "slip": (BATCH, schema.num_levels, 5)}
    targets = config.network.classification.targets if config.network.classification else []
    assert {name: tuple(logits.shape) for name, logits in output.class_logits.items()} == {
        name: shapes[name] for name in targets
    }
    encoded = config.network.neck.levels if config.network.neck.depth else []
    for name, layers in output.attention.items():
        cells = (HEIGHT // STRIDES[name]) * (WIDTH // STRIDES[name])
        assert [weights.shape for weights in layers] == [(BATCH, 4, cells, cells)] * config.network.neck.depth
    assert list(output.attention) == encoded


def test_maps_have_the_channels_and_strides_that_the_backbone_publishes(made):
    _, network = made
    with torch.no_grad():
        maps = network.backbone.eval()(network.normalise(films(1)))
    assert list(maps) == list(network.backbone.channels)
    for name, feature in maps.items():
        stride = STRIDES[name]
        assert feature.shape == (1, network.backbone.channels[name], HEIGHT // stride, WIDTH // stride), name


def test_a_gradient_reaches_every_trainable_parameter(made):
    _, network = made
    network = copy.deepcopy(network)
    network.freeze(0)
    total(network.train(), films()).backward()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert trainable
    without = [name for name, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_frozen_stages_stand_still_and_the_others_move(made):
    config, network = made
    network = copy.deepcopy(network)
    last = len(network.backbone.blocks) - 1
    network.freeze(-1)  # all but the last stage
    before = copy.deepcopy(network.state_dict())
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    total(network.train(), films()).backward()
    optimiser.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    frozen = tuple(f"backbone.blocks.{i}." for i in range(last))
    assert not {name for name in moved if name.startswith(frozen)}
    if not any(p.requires_grad for p in network.backbone.blocks[last].parameters()):
        return  # VGG's last stage only pools
    if last:
        assert {name for name in moved if name.startswith(f"backbone.blocks.{last}.")}
    network.freeze(0)
    norms = {
        f"{name}.{p}"
        for name, module in network.backbone.named_modules()
        if config.network.backbone.frozen_batch_norm and isinstance(module, torch.nn.BatchNorm2d)
        for p in ("weight", "bias")
    }
    unread = {id(p) for p in network.backbone.unread}
    still = {name for name, p in network.backbone.named_parameters() if not p.requires_grad}
    assert still == norms | {name for name, p in network.backbone.named_parameters() if id(p) in unread}


def test_a_state_dict_round_trip_keeps_every_logit(made):
    config, network = made
    other = build(config)
    for parameter in other.parameters():
        parameter.data.uniform_(-0.1, 0.1)
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected, found = network.eval()(films(2)), other.eval()(films(2))
    assert torch.equal(expected.heatmap_logits, found.heatmap_logits)
    assert torch.equal(expected.presence_logits, found.presence_logits)


def test_eval_mode_gives_one_answer_alone_and_in_a_batch(made):
    _, network = made
    film = films()
    with torch.no_grad():
        together, again = network.eval()(film).heatmap_logits, network(film).heatmap_logits
        alone = torch.cat([network(one[None]).heatmap_logits for one in film])
    assert torch.equal(together, again)
    scale = together.abs().max()
    torch.testing.assert_close(together / scale, alone / scale, rtol=0, atol=1e-4)
