"""Disturbed films: strength 0 changes nothing, labels move with the pixels, and films repeat."""

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.disturb import DISTURBANCES, DisturbedFilms
from vertebra_kp.data.phantom_films import PhantomFilms

LUMBAR = SCHEMAS["la_lumbar"]
MOVED = {"rotation", "cut", "upside_down", "mirrored"}


@pytest.fixture(scope="module")
def films():
    return PhantomFilms(LUMBAR, "standard", 2, 3, (160, 80), fresh=False)


@pytest.mark.parametrize("kind", sorted(DISTURBANCES))
def test_a_film_is_made_worse_the_same_way_every_time(films, kind):
    clean = films.at(0, 1)
    disturbance = DISTURBANCES[kind]
    assert disturbance.strengths[0] == 0
    np.testing.assert_array_equal(DisturbedFilms(films, kind, 0).at(0, 1).image, clean.image)
    hard = DisturbedFilms(films, kind, disturbance.strengths[-1])
    once, twice = hard.at(0, 1), hard.at(0, 1)
    np.testing.assert_array_equal(once.image, twice.image)
    assert once.image.dtype == np.uint8
    assert once.image.shape != clean.image.shape or (once.image != clean.image).any()
    assert hard.identity != films.identity
    if kind not in MOVED:
        np.testing.assert_array_equal(once.points_xy, clean.points_xy)


@pytest.mark.parametrize("kind", sorted(MOVED))
def test_labels_move_with_the_pixels_and_back_to_the_original(films, kind):
    clean = films.at(0, 0)
    moved = DisturbedFilms(films, kind, DISTURBANCES[kind].strengths[1]).at(0, 0)
    labelled = moved.states == State.LABELLED
    assert labelled.sum() >= 8
    assert np.isnan(moved.points_xy[~labelled]).all()
    original = moved.labels().points_xy_image
    if kind == "mirrored":
        original = original[:, [1, 0, 3, 2]]
        labelled = labelled[:, [1, 0, 3, 2]]
        assert moved.anterior_side == "right"
    np.testing.assert_allclose(original[labelled], clean.points_xy[labelled], atol=1e-3)


def test_a_cut_film_loses_its_lowest_vertebrae(films):
    cut = DisturbedFilms(films, "cut", 0.5).at(0, 0)
    assert cut.image.shape == (80, 80)
    assert (cut.states[-1, :2] == State.OUTSIDE).all()
    assert (cut.points_xy[cut.states == State.LABELLED][:, 1] <= 80).all()
