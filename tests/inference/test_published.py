"""Weights that come with the package: complete, small enough, and good for a prediction."""

import hashlib

import numpy as np
import pytest

from vertebra_kp.core.anatomy import PRESENT_FROM, SCHEMAS
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.evaluation.uncertainty.store import calibration_of, find_calibrated
from vertebra_kp.inference import network_file
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.network_file import COMMITTED, FILE, find_network, published

MOST_BYTES = 30 * 2**20  # all weights together: every clone carries them


def test_the_weights_for_use_are_small_together():
    """``ap-spine-held-out`` is not among them: it repeats figures."""
    folders = [COMMITTED / name for name in published() if not name.endswith("held-out")]
    assert len(folders) == 2
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) <= MOST_BYTES


@pytest.mark.parametrize("name", published())
def test_weights_come_with_checksum_calibration_and_card(name):
    folder = COMMITTED / name
    digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    assert (folder / f"{FILE}.sha256").read_text(encoding="utf-8").split() == [digest, FILE]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for heading in ("Data", "Terms of use", "Figures", "Known failures"):
        assert f"## {heading}" in card
    predictor = load(name, "cpu")
    if not calibration_of(find_network(name)).is_file():
        assert "no calibration" in card
        return
    assert find_calibrated(None, find_network(name), predictor.schema, predictor.fingerprint) is not None


def test_the_name_of_earlier_weights_still_works_and_says_what_it_became(caplog):
    network_file._say_renamed.cache_clear()
    assert find_network("aasce-ap") == find_network("ap-spine")
    assert "aasce-ap became ap-spine" in caplog.text


def test_a_spine_is_found_on_a_drawn_film():
    spine = SCHEMAS["ap_whole_spine"]
    film = PhantomFilms(spine, "standard", 5, 1, (600, 300), fresh=False).at(0, 0)
    found = load("ap-spine", "cpu").predict(film.image)
    # Never trained on such a film, it still finds most of the spine: predicted middles lie on true vertebrae.
    truth = film.labels().points_xy_image.mean(axis=1)
    step = np.linalg.norm(np.diff(truth, axis=0), axis=1).mean()
    middles = found.points_xy_image[found.presence >= PRESENT_FROM].mean(axis=1)
    assert len(middles) >= 8
    off = np.linalg.norm(middles[:, None] - truth, axis=2).min(axis=1)
    assert np.median(off) < 0.5 * step
