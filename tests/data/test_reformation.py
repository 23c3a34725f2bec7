"""Curved planar reformations: where a vertebra lands, and that nothing but the spine's course changes."""

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from vertebra_kp.config.spine import ReformationConfig
from vertebra_kp.core.anatomy import LEVELS, UNKNOWN
from vertebra_kp.core.geometry import compose, rotate, scale, translate, warp_image
from vertebra_kp.data.reformation import named_run, random_reformation, reformat
from vertebra_kp.data.spine_films import SpineFilm, Vertebrae

STILL = {"gamma": 0, "contrast": 0, "brightness": 0, "blur_px": 0, "noise": 0, "invert": 0, "cutout": 0}
FIRST = LEVELS.index("T1")


def gray_of(level: int) -> int:
    return 40 + 8 * level


def spine(n: int = 17) -> Vertebrae:
    along = 150 + 48.0 * np.arange(n)
    centres = np.stack([300 + 60 * np.sin(along / 250), along], axis=1)
    return Vertebrae(centres, np.full((n, 4, 2), np.nan), FIRST + np.arange(n))


def picture(vertebrae: Vertebrae) -> np.ndarray:
    """A disc at every vertebra, as gray as its level."""
    image = np.zeros((1150, 600), np.uint8)
    for (x, y), level in zip(vertebrae.centres, vertebrae.levels, strict=True):
        cv2.circle(image, (round(x - 0.5), round(y - 0.5)), 15, gray_of(int(level)), -1)
    return image


def test_a_vertebra_lies_in_the_middle_of_its_row():
    config, vertebrae = ReformationConfig(), spine()
    seen = reformat(picture(vertebrae), vertebrae.centres, -3, config)
    assert seen.shape == config.size == (576, 192)
    for i, level in enumerate(vertebrae.levels):
        row = seen[(i + 3) * 24 : (i + 4) * 24]
        y, x = np.nonzero(np.abs(row.astype(int) - gray_of(int(level))) < 4)
        assert (y.mean() + 0.5, x.mean() + 0.5) == pytest.approx((12, 96), abs=1.0)
    assert seen[:24].max() == 0 == seen[-24:].max()


def test_a_turned_larger_image_looks_the_same_along_its_spine():
    config, vertebrae = ReformationConfig(), spine()
    image = cv2.GaussianBlur(picture(vertebrae), (0, 0), 3)
    move = compose(translate(-300, -575), scale(1.2), rotate(12), translate(420, 760))
    moved = warp_image(image, move, (1520, 840))
    seen = reformat(image, vertebrae.centres, -3, config).astype(int)
    again = reformat(moved, vertebrae.moved(move).centres, -3, config).astype(int)
    assert np.abs(seen - again).max() < 12


def test_views_in_training_have_each_level_in_the_row_that_is_told():
    vertebrae = spine()
    film = SpineFilm("a", picture(vertebrae), vertebrae, 0)
    config = ReformationConfig(**STILL, collimated=0)
    lengths = set()
    for seed in range(40):
        image, found, first = random_reformation(film, config, np.random.default_rng(seed))
        lengths.add(int(found.sum()))
        assert (np.diff(np.flatnonzero(found)) == 1).all()
        for row in np.flatnonzero(found):
            level = first + row
            if FIRST <= level < FIRST + 17:  # neighbours beyond the marked ends show no disc
                middle = image[row * 24 + 6 : row * 24 + 18, 96 - 24 : 96 + 24] * 255
                assert np.abs(middle - gray_of(level)).min() < 2, (seed, row)
    assert min(lengths) < 10
    assert max(lengths) > 17


def test_a_cut_side_leaves_the_rows_of_vertebrae_from_above_and_below():
    vertebrae = spine(6)
    film = SpineFilm("a", np.full((1150, 600), 200, np.uint8), vertebrae, 0)
    config = ReformationConfig(**STILL, collimated=1, part=0, beyond=0)
    cut = 0
    for seed in range(30):
        image, found, _ = random_reformation(film, config, np.random.default_rng(seed))
        rows = image.reshape(24, 24, 192)[found]
        assert (rows[:, :, 192 * 2 // 5 : 192 * 3 // 5] > 0.7).all()
        cut += bool((image < 0.7).any())
    assert cut > 10


def test_the_longest_row_of_names_that_follow_each_other_counts():
    levels = np.array([7, 8, UNKNOWN, 10, 11, 12, 14])
    run = named_run(Vertebrae(np.zeros((7, 2)) + np.arange(7)[:, None], np.zeros((7, 4, 2)), levels))
    assert run.levels.tolist() == [10, 11, 12]
    assert run.centres[:, 0].tolist() == [3, 4, 5]
    assert len(named_run(Vertebrae(np.empty((0, 2)), np.empty((0, 4, 2)), np.empty(0, dtype=int))).levels) == 0


@pytest.mark.parametrize(
    ("values", "told"), [({"rows": 23}, "rows: .*552.*pad to"), ({"least": 30}, "least is 30")]
)
def test_sizes_that_do_not_fit_are_refused(values, told):
    with pytest.raises(ValidationError, match=told):
        ReformationConfig(**values)
