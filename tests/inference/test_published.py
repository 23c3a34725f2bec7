"""Weights that come with the package: complete, small enough, and good for a prediction."""

import hashlib

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.films import PhantomFilms
from vertebra_kp.evaluation.uncertainty.store import calibration_of, find_calibrated
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.weights import COMMITTED, FILE, find_network, published

MOST_BYTES = 30 * 2**20  # all weights together: every clone carries them


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) <= MOST_BYTES


@pytest.mark.parametrize("name", published())
def test_weights_come_with_checksum_calibration_and_card(name):
    folder = COMMITTED / name
    digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    assert (folder / f"{FILE}.sha256").read_text(encoding="utf-8").split() == [digest, FILE]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for heading in ("Data", "Terms of use", "Figures", "Known failures"):
        assert f"## {heading}" in card
    predictor = load(name, "cpu")
    assert calibration_of(find_network(name)).is_file()
    assert find_calibrated(None, find_network(name), predictor.schema, predictor.fingerprint) is not None


def test_the_whole_spine_is_predicted_on_a_drawn_film():
    spine = SCHEMAS["ap_whole_spine"]
    film = PhantomFilms(spine, "standard", 5, 1, (600, 300), fresh=False).at(0, 0)
    found = load("aasce-ap", "cpu").predict(film.image)
    assert np.isfinite(found.points_xy_image).all()
    # Never trained on such a film alone, it still finds the spine: middles of vertebrae within a vertebra's step.
    truth = film.labels().points_xy_image.mean(axis=1)
    step = np.linalg.norm(np.diff(truth, axis=0), axis=1).mean()
    off = np.linalg.norm(found.points_xy_image.mean(axis=1) - truth, axis=1)
    assert np.median(off) < 2 * step
