"""What a spine network sees in training."""

import numpy as np
import pytest
from pydantic import ValidationError

from vertebra_kp.config.spine import ViewsConfig
from vertebra_kp.data.spine_films import SpineFilm, Vertebrae
from vertebra_kp.data.spine_views import SPINE_JITTER, random_view

SIZE = (512, 224)
SHIFT = 1.5 * 28.0  # px by which the spine may stand off the middle


def leaning_film(count: int, lean_deg: float) -> SpineFilm:
    """A spine of ``count`` centres, 60 px apart, that leans from the vertical of a dark image."""
    lean = np.deg2rad(lean_deg)
    centres = np.array([400.0, 100.0]) + 60.0 * np.arange(count)[:, None] * [np.sin(lean), np.cos(lean)]
    corners = np.full((count, 4, 2), np.nan)
    image = np.zeros((1400, 900), dtype=np.uint8)
    return SpineFilm("leaning", image, Vertebrae(centres, corners, np.arange(count) + 7), 0)


@pytest.mark.parametrize("count", [5, 17])
@pytest.mark.parametrize("lean_deg", [-15.0, 0.0, 15.0])
def test_a_view_of_the_spine_shows_all_of_it_upright(count, lean_deg):
    config = ViewsConfig(size=SIZE, close=0.0, spine=1.0, step_px=28.0, rotate_deg=0.0, flip=False)
    film = leaning_film(count, lean_deg)
    largest = min(28.0 * np.exp(SPINE_JITTER), SIZE[0] / (count + 1))
    for seed in range(20):
        _, seen = random_view(film, config, np.random.default_rng(seed))
        assert np.abs(seen.centres[:, 1] - SIZE[0] / 2).max() < SIZE[0] / 2 + SHIFT
        np.testing.assert_allclose(seen.centres[:, 0], seen.centres[0, 0], atol=1e-6)
        assert seen.steps.max() <= largest + 1e-6
        assert seen.steps.min() >= min(28.0 * np.exp(-SPINE_JITTER), largest) - 1e-6


def test_shares_of_views_are_parts_of_one_whole():
    with pytest.raises(ValidationError, match="close and spine"):
        ViewsConfig(close=0.7, spine=0.4)
