"""Levels placed together along the spine's line: the line, and maps that lose what lies at other vertebrae."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.spine_curve import LEAST_LEVELS, _theil_sen, line_through
from vertebra_kp.data.loader import FilmDataset
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.inference.batch import predict_batch
from vertebra_kp.inference.level_decoding import chained
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.network import Output

SPINE = SCHEMAS["ap_whole_spine"]
CODEC = HeatmapCodec(stride=4, sigma=1.5)
MAP = (120, 64)  # of a film of 480 x 256
NEAR_PX = 0.7  # the window's edge takes a little of a peak that is not in its middle


def spine(bend: float = 0.0, growth: float = 0.0, step: float = 22.0) -> np.ndarray:
    """Seventeen boxes 32 wide and 0.7 steps high along a sine of slope ``bend``; steps grow by ``growth`` px."""
    fine = np.linspace(0, 600, 6001)
    length = np.concatenate(
        [[0], np.cumsum(np.hypot(np.diff(fine), np.diff(120 * bend * np.sin((fine - 60) / 120))))]
    )
    y = np.interp(np.interp(40, fine, length) + np.cumsum(np.r_[0, step + growth * np.arange(16)]), length, fine)
    x = 120 + 120 * bend * np.sin((y - 60) / 120)
    slope = bend * np.cos((y - 60) / 120)
    across = np.stack([np.ones(17), -slope], axis=1) / np.hypot(1, slope)[:, None]
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    signs = np.array([[-16, -0.35 * step], [16, -0.35 * step], [-16, 0.35 * step], [16, 0.35 * step]])
    boxes = signs[None, :, :1] * across[:, None] + signs[None, :, 1:] * down[:, None]
    return np.stack([x, y], axis=1)[:, None] + boxes


def maps_of(points: np.ndarray) -> torch.Tensor:
    """``[1, 68, h, w]``, each of sum 1."""
    maps = CODEC.encode(torch.from_numpy(SPINE.gather(points))[None], MAP)
    return maps / maps.sum(dim=(-2, -1), keepdim=True)


def read(maps: torch.Tensor) -> np.ndarray:
    return SPINE.scatter(CODEC.decode(maps).points_xy[0].numpy())


def read_chained(maps: torch.Tensor) -> np.ndarray:
    alone = CODEC.decode(maps).points_xy
    return read(chained(maps, alone, SPINE, CODEC.stride))


@pytest.mark.parametrize(("bend", "growth"), [(0.0, 0.0), (0.5, 0.0), (-0.4, 0.3)])
def test_maps_that_agree_keep_their_corners(bend, growth):
    points = spine(bend, growth)
    np.testing.assert_allclose(read_chained(maps_of(points)), points, atol=NEAR_PX)


@pytest.mark.parametrize("bend", [0.0, 0.4])
def test_two_levels_on_one_vertebra_go_apart(bend):
    """From level 9 on, the highest peaks lie one vertebra too high, but at the foot all is clear."""
    points = spine(bend)
    wrong = points.copy()
    wrong[9:12] = points[8:11]
    maps = 0.7 * maps_of(wrong) + 0.3 * maps_of(points)
    assert np.abs(read(maps) - points)[9:12].max() > 15
    np.testing.assert_allclose(read_chained(maps), points, atol=NEAR_PX)


def test_a_vertebra_that_no_map_of_its_own_shows_is_found_in_those_of_others():
    points = spine(0.3)
    wrong = points.copy()
    wrong[8] = points[7]
    own = maps_of(wrong)
    seen_by_neighbour = maps_of(np.concatenate([points[1:], points[-1:]]))
    maps = own.clone()
    neighbours = SPINE.gather(np.broadcast_to(np.arange(17)[:, None], (17, 4)).astype(float)) == 7
    mixed = 0.8 * own + 0.2 * seen_by_neighbour
    maps[:, neighbours] = mixed[:, neighbours]
    np.testing.assert_allclose(read_chained(maps)[8], points[8], atol=1.0)


def test_one_corner_of_the_next_level_comes_back():
    points = spine(-0.4)
    wrong = points.copy()
    wrong[5, 1], wrong[5, 3] = points[6, 1], points[6, 3]  # a vertebra drawn aslant
    maps = 0.6 * maps_of(wrong) + 0.4 * maps_of(points)
    assert np.abs(read(maps) - points)[5].max() > 15
    np.testing.assert_allclose(read_chained(maps), points, atol=NEAR_PX)


def test_a_map_with_nothing_at_its_place_stays_as_it_is():
    """All lower left corners are seen in the film's first cell only, which is no vertebra's."""
    points = spine()
    maps = maps_of(points)
    lower_left = np.nonzero(SPINE.exists)[1] == 2
    maps[:, lower_left] = 0
    maps[:, lower_left, 0, 0] = 1
    kept = chained(maps, torch.from_numpy(SPINE.gather(points))[None], SPINE, CODEC.stride)
    assert torch.equal(kept[:, lower_left], maps[:, lower_left])
    others = read(kept)[:, [0, 1, 3]]
    np.testing.assert_allclose(others, points[:, [0, 1, 3]], atol=NEAR_PX)


def test_films_without_a_line_keep_their_maps():
    maps = torch.rand(2, 68, *MAP, generator=torch.Generator().manual_seed(0))
    nowhere = torch.full((2, 68, 2), 30.0)
    assert (chained(maps, nowhere, SPINE, CODEC.stride) == maps).all()


def test_noise_is_survived():
    maps = torch.rand(1, 68, *MAP, generator=torch.Generator().manual_seed(1))
    assert np.isfinite(read_chained(maps / maps.sum(dim=(-2, -1), keepdim=True))).all()


def test_levels_of_the_line_are_those_of_the_vertebrae():
    points = spine(0.5, 0.4)
    line = line_through(points)
    xy, across, step = line.at(np.arange(17.0))
    centres = points.mean(axis=1)
    true_step = np.linalg.norm(np.diff(centres, axis=0), axis=1).mean()
    assert np.linalg.norm(xy - centres, axis=1).max() < 0.25 * true_step
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), 1)
    np.testing.assert_allclose(step.mean(), true_step, rtol=0.1)
    # Across is where the vertebrae's upper endplates point to.
    plates = points[:, 1] - points[:, 0]
    turn = (across * plates).sum(axis=1) / np.linalg.norm(plates, axis=1)
    assert turn.min() > np.cos(np.deg2rad(8))


def test_wrong_names_do_not_stretch_the_line():
    """One vertebra found twice, and all below it called one too low."""
    points = spine(0.3)
    wrong = points.copy()
    wrong[12:] = points[11:16]
    _, _, expected = line_through(points).at(np.arange(17.0))
    _, _, found = line_through(wrong).at(np.arange(17.0))
    np.testing.assert_allclose(found, expected, rtol=0.15)


def test_too_few_vertebrae_tell_no_line():
    points = spine()
    points[LEAST_LEVELS:] = np.nan
    assert line_through(points) is not None
    points[0] = np.nan
    assert line_through(points) is None
    assert line_through(np.ones((17, 4, 2))) is None  # all at one place


class Shows(nn.Module):
    """A network that shows the same maps on every film."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(maps.clamp_min(1e-9).log())

    def forward(self, image: torch.Tensor, return_attention: bool = False) -> Output:
        return Output(self.logits, torch.zeros(1, 17), {}, {})


def test_a_prediction_is_as_sure_as_each_map_alone():
    """Placed maps show one peak whatever happens: what they have lost must not look like certainty."""
    points = spine(0.4)
    wrong = points.copy()
    wrong[9:12] = points[8:11]
    network = Shows(0.7 * maps_of(wrong) + 0.3 * maps_of(points))
    size = (4 * MAP[0], 4 * MAP[1])
    films = PhantomFilms(SPINE, "standard", 0, 1, size, fresh=False)
    batch = FilmDataset(films, SPINE, size).batch([(0, 0)])
    content = {
        "name": "chain",
        "data": {"anatomy": "ap_whole_spine", "input_size": size},
        "network": {"decoder": {"output_stride": 4}},
        "train": {"phases": [{"name": "all", "epochs": 1}]},
    }
    alone, placed = (
        predict_batch(network, batch, Config.model_validate(content | {"inference": {"chain": chain}}))[0]
        for chain in (False, True)
    )
    assert np.abs(placed.points_xy - points).max() < NEAR_PX < np.abs(alone.points_xy - points).max()
    np.testing.assert_array_equal(placed.scores, alone.scores)


def test_the_robust_line_is_scipys():
    random = np.random.default_rng(3)
    for n in (2, 5, 16):
        x, y = np.sort(random.uniform(0, 16, n)), random.normal(size=n)
        expected = stats.theilslopes(y, x)
        np.testing.assert_allclose(_theil_sen(x, y), (expected.slope, expected.intercept), atol=1e-12)
