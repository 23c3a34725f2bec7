"""Single vertebrae cut out of films, and the crop refinement that puts them together again."""

import dataclasses

import numpy as np
import pytest
from one_prediction import a_prediction

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.geometry import apply_affine, compose, rotate, translate
from vertebra_kp.data.films import LooseFilms, shrunk
from vertebra_kp.data.patches import PatchFilms, windows
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.data.transforms import place
from vertebra_kp.inference import refine

SPINE = SCHEMAS["ap_whole_spine"]
CONFIG = Config.model_validate(
    {
        "name": "second_look",
        "data": {
            "source": "csv",
            "anatomy": "ap_whole_spine",
            "split_file": "own.json",
            "train_splits": ["a"],
            "validation_splits": ["b"],
            "input_size": (64, 64),
            "patch": {"widths": 2.0, "film_size": (512, 256)},
        },
        "train": {"phases": [{"name": "all", "epochs": 1}]},
    }
)
EXACT_PX = 0.01  # of the original film: float32 coordinates


@pytest.fixture(scope="module")
def film():
    return PhantomFilms(SPINE, "standard", 3, 1, (512, 256), fresh=False).at(0, 0)


def test_a_window_holds_its_vertebra_upright_in_the_middle():
    boxes = np.array([[[-3, -1], [3, -1], [-3, 1], [3, 1]]], dtype=float)  # 6 wide, 2 high
    turned = apply_affine(compose(rotate(30), translate(40, 70)), boxes)
    (window,) = windows(turned, 1.5)
    # The side is 9: the corners lie a third of it, and a ninth, from the middle.
    expected = np.array([[-1 / 3, -1 / 9], [1 / 3, -1 / 9], [-1 / 3, 1 / 9], [1 / 3, 1 / 9]]) + 0.5
    np.testing.assert_allclose(apply_affine(window, turned[0]), expected, atol=1e-12)


def test_a_vertebra_that_is_much_too_narrow_takes_the_width_of_its_neighbours():
    boxes = np.stack([np.array([[-3, -1], [3, -1], [-3, 1], [3, 1]], dtype=float)] * 5)
    boxes[:, :, 1] += 3 * np.arange(5)[:, None]
    boxes[2, :, 0] /= 10
    (expected,) = windows(boxes[:1], 2.0)
    np.testing.assert_allclose(windows(boxes, 2.0)[2][:2, :2], expected[:2, :2])
    boxes[2, 0] = np.nan
    found = windows(boxes, 2.0)
    assert np.isnan(found[2]).all()
    assert np.isfinite(found[[0, 1, 3, 4]]).all()


def turned_spine(angles):
    """Boxes 6 wide and 2 high, one below the other, turned by these degrees."""
    box = np.array([[-3, -1], [3, -1], [-3, 1], [3, 1]], dtype=float)
    return np.stack(
        [apply_affine(compose(rotate(angle), translate(20, 10 + 3 * i)), box) for i, angle in enumerate(angles)]
    )


def seen_at(window):
    """The angle, in degrees, of the film's horizontal in a window."""
    return np.rad2deg(np.arctan2(window[1, 0], window[0, 0]))


def test_a_vertebra_that_lies_across_its_neighbours_is_seen_in_their_direction():
    found = windows(turned_spine([10, 12, -110, 16, 18]), 2.0)
    np.testing.assert_allclose([-seen_at(window) for window in found], [10, 12, 12, 16, 18], atol=1e-9)
    # Across the line where angles begin again.
    found = windows(turned_spine([178, 179, 20, -179, -178]), 2.0)
    assert -seen_at(found[2]) == pytest.approx(179)


def test_a_steep_curve_is_seen_as_it_turns():
    angles = [0, 20, 40, 60, 40, 20, 0, -20]
    found = windows(turned_spine(angles), 2.0)
    np.testing.assert_allclose([-seen_at(window) for window in found], angles, atol=1e-9)


def test_patches_are_the_labelled_vertebrae_and_lead_back_to_the_film(film):
    states = film.states.copy()
    states[4, 1] = State.UNLABELLED
    states[9] = State.OUTSIDE
    masked = dataclasses.replace(film, states=states)
    patches = PatchFilms(LooseFilms([film, masked]), CONFIG.data)
    assert len(patches) == 17 + 15
    for index in (0, 16, 20):
        patch = patches.at(0, index)
        level = SPINE.levels.index(patch.id.split(":")[1])
        sample = place(patch, (64, 64))
        assert sample.image.shape == (64, 64)
        assert sample.points_xy.shape == (1, 4, 2)
        np.testing.assert_allclose(sample.points_xy[0].mean(axis=0), 32, atol=1e-3)
        back = apply_affine(np.linalg.inv(sample.matrix), sample.points_xy[0])
        np.testing.assert_allclose(back, film.labels().points_xy_image[level], atol=EXACT_PX)
        np.testing.assert_allclose(
            patch.labels().points_xy_image[0], film.labels().points_xy_image[level], atol=EXACT_PX
        )


def test_the_refinement_of_a_batch_moves_corners_to_where_its_network_sees_them(film, monkeypatch):
    """A network that sees every true corner half a patch pixel too far to the right."""
    truth = film.labels().points_xy_image

    shown, placed = [], refine.place

    def place(patch, size):
        sample = placed(patch, size)
        shown.append((SPINE.levels.index(patch.id.split(":")[1]), sample.matrix))
        return sample

    class Stage:
        def corners(self, seen):
            places, shown[:] = list(shown), []
            points = np.stack([apply_affine(compose(m, translate(0.5, 0)), truth[level]) for level, m in places])
            assert len(seen) == len(points)
            covariances = np.stack([[7 * m[:2, :2] @ m[:2, :2].T] * 4 for _, m in places])
            return points, covariances, np.full((len(points), 4), 0.5)

    monkeypatch.setattr(refine, "place", place)
    rng = np.random.default_rng(0)
    first = truth + rng.normal(0, 3, truth.shape)
    first[5] = np.nan
    plain = a_prediction(first, covariances=np.ones((17, 4, 2, 2)))
    empty = a_prediction(np.full_like(first, np.nan))
    refined, unfound = refine.Refiner(Stage(), CONFIG).refine([plain, empty], [film, film], SPINE)
    assert np.isnan(unfound.points_xy_image).all()
    moved = np.linalg.norm(refined.points_xy_image - truth, axis=-1)
    width = np.linalg.norm(truth[:, 1] - truth[:, 0], axis=-1)
    others = np.arange(17) != 5
    # Half of one of 64 pixels that are two widths: 1/64 of a width, as the first pass has set the windows.
    np.testing.assert_allclose(moved[others], (width / 64)[others, None].repeat(4, 1), rtol=0.2)
    assert np.isnan(refined.points_xy_image[5]).all()
    np.testing.assert_allclose(
        refined.covariances[others], np.broadcast_to(7 * np.eye(2), (16, 4, 2, 2)), atol=1e-9
    )
    assert (refined.covariances[5] == 1).all()


def test_a_film_in_finer_pixels_is_shrunk_with_its_corners(film):
    small = shrunk(film, (128, 64))
    assert small.image.shape == (160, 80)  # 1.25 times what the network needs
    np.testing.assert_allclose(small.points_xy, film.points_xy * 160 / 512, atol=EXACT_PX)
    np.testing.assert_allclose(small.labels().points_xy_image, film.labels().points_xy_image, atol=EXACT_PX)
