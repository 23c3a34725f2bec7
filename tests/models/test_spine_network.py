"""The spine network: shapes, sizes it takes, and what a mirror image means."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.spine import USUAL_STEP
from vertebra_kp.core.anatomy import FLIPPED_CORNER, LEVELS, UNKNOWN
from vertebra_kp.data.spine_films import Vertebrae
from vertebra_kp.data.spine_views import targets_of
from vertebra_kp.inference.spine_maps import SpineArrays
from vertebra_kp.models.spine_loss import spine_loss
from vertebra_kp.models.spine_network import SpineNetwork, SpineOutput

CONFIG = NetworkConfig(
    backbone=BackboneConfig(name="timm/tf_efficientnet_lite0"),
    neck=NeckConfig(depth=1, width=16, heads=2),
    decoder=DecoderConfig(channels=[16, 16, 16], output_stride=4),
)
SIZE, STRIDE = (256, 128), 4


def network() -> SpineNetwork:
    torch.manual_seed(0)
    return SpineNetwork(CONFIG).eval()


def spine() -> Vertebrae:
    centres = np.stack([60.3 + 3 * np.arange(6), 30.0 + 33 * np.arange(6)], axis=1)
    half = np.array([[-18.0, -12], [18, -12], [-18, 12], [18, 12]])
    return Vertebrae(centres, centres[:, None] + half, LEVELS.index("T12") + np.arange(6))


def perfect(vertebrae: Vertebrae, width: int = SIZE[1]) -> SpineOutput:
    """Output that the loss cannot improve, built from the targets."""
    t = targets_of([(vertebrae, 0)], (SIZE[0], width), STRIDE)
    _, h, w = t.owner.shape
    row, column = torch.nonzero(t.owner[0] >= 0, as_tuple=True)
    owner = t.owner[0, row, column]
    cell = (torch.stack([column, row], dim=1) + 0.5) * STRIDE
    step = t.steps[0, owner].nan_to_num(1.0)
    offsets, log_step, down = torch.zeros(1, 8, h, w), torch.zeros(1, 1, h, w), torch.zeros(1, 2, h, w)
    levels = torch.zeros(1, len(LEVELS), h, w)
    corners = t.corners[0, owner].view(-1, 4, 2)
    offsets[0, :, row, column] = ((corners - cell[:, None]) / step[:, None, None]).flatten(1).T.nan_to_num()
    log_step[0, 0, row, column] = (step / USUAL_STEP).log()
    down[0, :, row, column] = t.down[0, owner].nan_to_num().T
    levels[0, t.levels[0, owner], row, column] = 20.0
    points = torch.where(t.points == 1, 12.0, -12.0)
    return SpineOutput(points, offsets, log_step, down, levels, torch.tensor([[12.0, -12.0]]))


def test_maps_have_the_decoders_stride_and_any_size_divisible_by_32():
    with torch.no_grad():
        output = network()(torch.rand(2, 1, 160, 96))
    assert output.points.shape == (2, 5, 40, 24)
    assert output.levels.shape == (2, len(LEVELS), 40, 24)
    assert output.view.shape == (2, 2)
    with pytest.raises(ValueError, match="pad to"):
        network()(torch.rand(1, 1, 150, 96))


def test_a_perfect_output_costs_nothing_but_smoothed_names():
    terms = spine_loss(perfect(spine()), targets_of([(spine(), 0)], SIZE, STRIDE), STRIDE, USUAL_STEP)
    for name in ("points", "offsets", "step", "down", "view"):
        assert float(terms[name]) < 1e-3, name
    with torch.no_grad():
        untrained = network()(torch.rand(1, 1, *SIZE))
    worse = spine_loss(untrained, targets_of([(spine(), 0)], SIZE, STRIDE), STRIDE, USUAL_STEP)
    assert all(float(worse[name]) > 10 * float(terms[name]) for name in ("points", "offsets", "step", "down"))


def test_what_nobody_marked_costs_nothing():
    lone = spine()
    unnamed = Vertebrae(lone.centres, np.full_like(lone.corners, np.nan), np.full(6, UNKNOWN))
    targets = targets_of([(unnamed, 0)], SIZE, STRIDE)
    terms = spine_loss(perfect(spine()), targets, STRIDE, USUAL_STEP)
    assert float(terms["levels"]) == 0
    assert float(terms["offsets"]) == 0
    assert float(terms["points"]) < 1e-3  # corners are there, and their absence is not claimed


def test_the_names_beyond_the_ends_are_known():
    whole = Vertebrae(spine().centres, spine().corners, LEVELS.index("L5") - 5 + np.arange(6))
    targets = targets_of([(whole, 0)], SIZE, STRIDE)
    assert LEVELS[int(targets.levels[0, 6])] == "S1"
    x, y = whole.centres[-1] + (whole.centres[-1] - whole.centres[-2])
    assert int(targets.owner[0, int(y / STRIDE), int(x / STRIDE)]) == 6
    assert torch.isnan(targets.steps[0, 6])


def arrays(output: SpineOutput) -> SpineArrays:
    return SpineArrays(*(getattr(output, field.name)[0].numpy() for field in fields(SpineOutput)))


def test_a_mirror_image_is_turned_back_exactly():
    upright = spine()
    there = upright.centres * (-1, 1) + (SIZE[1], 0)
    corners = (upright.corners * (-1, 1) + (SIZE[1], 0))[:, FLIPPED_CORNER, :]
    back = arrays(perfect(Vertebrae(there, corners, upright.levels))).unmirrored()
    for name, value in vars(arrays(perfect(upright))).items():
        np.testing.assert_allclose(getattr(back, name), value, rtol=0, atol=1e-4, err_msg=name)
