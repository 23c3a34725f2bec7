"""Maps to vertebrae: perfect maps give back what they were made of, whatever is in the way."""

from dataclasses import replace

import numpy as np
import pytest

from vertebra_kp.config.spine import USUAL_STEP
from vertebra_kp.core.anatomy import LEVELS, VIEWS
from vertebra_kp.data.spine_films import Vertebrae
from vertebra_kp.data.spine_views import targets_of
from vertebra_kp.inference.spine_decoding import SpineMaps, decode, place_corners

SIZE, STRIDE, STEP = (512, 224), 4, 26.0


def spine(count: int = 15, step: float = STEP) -> Vertebrae:
    """A curved spine of ``count`` vertebrae from T3 on, without two on one row of cells."""
    along = 40.3 + step * np.arange(count)
    centres = np.stack([112.7 + 20 * np.sin(along / 90), along], axis=1)
    half = np.array([[-0.5, -0.35], [0.5, -0.35], [-0.5, 0.35], [0.5, 0.35]]) * step
    return Vertebrae(centres, centres[:, None] + half, LEVELS.index("T3") + np.arange(count))


def perfect_maps(vertebrae: Vertebrae) -> SpineMaps:
    return maps_of(vertebrae, SIZE, np.ones(len(VIEWS)) / 2)


def maps_of(vertebrae: Vertebrae, size: tuple[int, int], view: np.ndarray) -> SpineMaps:
    """What a perfect network says of an image of ``size`` with these vertebrae."""
    targets = targets_of([(vertebrae, 0)], size, STRIDE)
    owner = targets.owner[0].numpy()
    h, w = owner.shape
    cells = (np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1) + 0.5) * STRIDE
    offsets, log_step, down = np.zeros((8, h, w)), np.zeros((1, h, w)), np.zeros((2, h, w))
    levels = np.zeros((len(LEVELS), h, w))
    for i, step in enumerate(vertebrae.steps):
        mine = owner == i
        offsets[:, mine] = ((vertebrae.corners[i][None] - cells[mine][:, None]) / step).reshape(-1, 8).T
        log_step[:, mine] = np.log(step / USUAL_STEP)
        down[:, mine] = vertebrae.down[i][:, None]
        levels[vertebrae.levels[i], mine] = 40.0
    return SpineMaps(targets.points[0].numpy(), offsets, log_step, down, levels, view, STRIDE)


def without(maps: SpineMaps, point: np.ndarray) -> SpineMaps:
    """The maps with the peak of a centre wiped out."""
    points = maps.points.copy()
    x, y = (point / STRIDE).astype(int)
    points[0, y - 3 : y + 4, x - 3 : x + 4] = 0
    return SpineMaps(points, maps.offsets, maps.log_step, maps.down, maps.levels, maps.view, maps.stride)


@pytest.mark.parametrize("step", [14.0, 26.0])
def test_perfect_maps_give_back_the_spine(step):
    vertebrae = spine(step=step)
    found = decode(perfect_maps(vertebrae))
    assert len(found) == len(vertebrae.centres)
    assert np.linalg.norm(found.centres - vertebrae.centres, axis=1).max() < 0.5 * STRIDE
    assert np.linalg.norm(found.corners - vertebrae.corners, axis=2).max() < 0.5 * STRIDE
    assert found.levels.argmax(axis=1).tolist() == vertebrae.levels.tolist()
    np.testing.assert_allclose(found.steps, vertebrae.steps, rtol=0.01)


def test_a_vertebra_without_a_peak_is_filled_in_between_its_neighbours():
    vertebrae = spine()
    found = decode(without(perfect_maps(vertebrae), vertebrae.centres[6]))
    assert len(found) == len(vertebrae.centres)
    assert found.scores[6] == 0
    assert np.linalg.norm(found.centres[6] - vertebrae.centres[6]) < 0.2 * STEP


def test_a_lone_peak_beside_the_spine_is_no_vertebra():
    vertebrae = spine()
    maps = perfect_maps(vertebrae)
    maps.points[0, 60, 5] = 0.9
    found = decode(maps)
    assert len(found) == len(vertebrae.centres)
    assert found.centres[:, 0].min() > 60


def test_an_empty_map_gives_no_vertebra():
    maps = perfect_maps(spine())
    maps.points[:] = 0
    assert len(decode(maps)) == 0


def test_corners_move_to_their_peaks_on_larger_vertebrae_and_stay_where_there_are_none():
    vertebrae = spine(6)
    found = decode(perfect_maps(vertebrae))
    moved = replace(found, corners=found.corners + 3.0)  # a ninth of a step off
    placed = place_corners(perfect_maps(vertebrae), moved)
    assert np.abs(placed.corners - vertebrae.corners).max() < STRIDE / 2
    nothing = perfect_maps(Vertebrae(np.empty((0, 2)), np.empty((0, 4, 2)), np.empty(0, dtype=int)))
    assert (place_corners(nothing, moved).corners == moved.corners).all()
