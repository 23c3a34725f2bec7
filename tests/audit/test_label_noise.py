"""Films labelled twice: laid over each other, their labels differ by what they were made to differ by."""

import cv2
import numpy as np
import pytest

from vertebra_kp.audit.label_noise import compare_labels
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.geometry import apply_affine, compose, rotate, scale, translate, warp_image
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.record import Record

SPINE = SCHEMAS["ap_whole_spine"]
SIZE = (640, 260)


@pytest.fixture
def pair(tmp_path):
    """A film, and the same one cropped, enlarged and turned a little, with labels 3 px too far to the right."""
    film = draw_film(SPINE, "standard", 4, 0, SIZE)
    move = compose(rotate(1.0, (130, 320)), scale(1.04), translate(-9, -12))
    moved = warp_image(film.image, move, (650, 255))
    records = []
    labels = (film.points_xy_image, apply_affine(compose(translate(3, 0), move), film.points_xy_image))
    for name, image, points in zip("ab", (film.image, moved), labels, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        records.append(Record(name, tmp_path / f"{name}.png", "patient", points, film.states))
    return records


def test_labels_of_the_same_film_differ_by_what_they_were_moved(pair):
    twice = compare_labels(*pair, SPINE)
    assert twice.same_film
    errors = twice.result.errors_px[twice.result.labelled]
    assert np.median(errors) == pytest.approx(3, abs=0.4)


def test_another_film_is_not_the_same(pair, tmp_path):
    other = draw_film(SPINE, "standard", 4, 7, SIZE)
    cv2.imwrite(str(tmp_path / "c.png"), other.image)
    third = Record("c", tmp_path / "c.png", "other", other.points_xy_image, other.states)
    assert not compare_labels(pair[0], third, SPINE).same_film
