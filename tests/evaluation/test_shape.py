"""The shape model: real spines are plausible, broken ones are not, and believed corners stay where they are."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import TypeAdapter

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine, compose, scale, translate
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.evaluation.agreement import auc
from vertebra_kp.evaluation.uncertainty.shape import fit_shapes, shape_model_from_dict
from vertebra_kp.evaluation.uncertainty.trust import TrustModel, fit_trust, signs_of

LUMBAR = SCHEMAS["la_lumbar"]
CORNER_SD = 2.0


@pytest.fixture(scope="module")
def spines():
    return [draw_film(LUMBAR, "standard", 4, i, (256, 128)).points_xy_image for i in range(160)]


@pytest.fixture(scope="module")
def model(spines):
    return fit_shapes(spines[:120], LUMBAR)


def believed(points: np.ndarray, sd: float = CORNER_SD) -> np.ndarray:
    return np.broadcast_to(sd**2 * np.eye(2), (*points.shape, 2))


def test_unseen_spines_are_plausible_and_broken_ones_are_not(model, spines):
    usual = [model.implausibility(spine) for spine in spines[120:]]
    assert 0.3 < np.median(usual) < 3
    spine = spines[130]
    for broken in (spine[:, [1, 0, 3, 2]], spine[::-1], spine * (1, -1), spine * (-1, 1), spine * (1, 0.6)):
        assert model.implausibility(broken) > 3 * max(usual)


def test_plausibility_does_not_depend_on_place_and_size(model, spines):
    moved = apply_affine(compose(scale(7.0), translate(300, -20)), spines[125])
    assert model.implausibility(moved) == pytest.approx(model.implausibility(spines[125]), rel=1e-4)


def test_a_part_of_a_spine_is_judged_by_what_is_seen(model, spines):
    part = spines[125].copy()
    part[4:] = np.nan
    assert model.implausibility(part) < 5
    part[1:] = np.nan
    part[0, 0] = np.nan
    assert np.isnan(model.implausibility(part))


def test_corners_that_are_believed_stay_and_a_wild_one_is_brought_back(model, spines):
    spine = spines[125].astype(np.float64)
    corrected, surprise = model.corrected(spine, believed(spine, 1e-4))
    np.testing.assert_allclose(corrected[LUMBAR.exists], spine[LUMBAR.exists], atol=1e-3)
    wild, doubts = spine.copy(), believed(spine, 0.5).copy()
    wild[2, 1] += (15, 8)
    doubts[2, 1] *= 30**2
    corrected, _ = model.corrected(wild, doubts)
    assert np.linalg.norm(corrected[2, 1] - spine[2, 1]) < 5
    _, surprise = model.corrected(wild, believed(spine, 0.5))
    assert np.nanargmax(surprise) == 2 * 4 + 1
    assert np.isnan(surprise[5, 2:]).all()


def test_correction_brings_noisy_corners_nearer_to_the_truth(model, spines):
    rng = np.random.default_rng(0)
    before, after = [], []
    for spine in spines[120:]:
        noisy = spine + rng.normal(0, CORNER_SD, spine.shape)
        corrected, _ = model.corrected(noisy, believed(spine))
        before.append(np.nanmean(np.linalg.norm(noisy - spine, axis=-1)))
        after.append(np.nanmean(np.linalg.norm(corrected - spine, axis=-1)))
    assert np.mean(after) < 0.85 * np.mean(before)


def test_a_spine_that_is_read_one_level_off_speaks_for_its_shift(model, spines):
    right, off = [], []
    for spine in spines[120:]:
        right.append(max(model.shift_evidence(spine)))
        beyond = 2 * spine[0] - spine[1]
        off.append(model.shift_evidence(np.concatenate([beyond[None], spine[:-1]]))[0])
    assert auc(np.array(off), np.array(right)) > 0.8


def test_too_few_whole_spines_are_refused(spines):
    cut = [np.where(np.arange(6)[:, None, None] < 4, spine, np.nan) for spine in spines]
    with pytest.raises(UserError, match="needs 20 spines with every corner labelled, there are 0"):
        fit_shapes(cut, LUMBAR)


def test_a_model_survives_its_file_and_a_foreign_one_is_refused(model, spines):
    again = shape_model_from_dict(model.as_dict(), LUMBAR)
    assert again.implausibility(spines[3]) == pytest.approx(model.implausibility(spines[3]), rel=1e-3)
    with pytest.raises(UserError, match="of la_lumbar, ap_lumbar was asked for"):
        shape_model_from_dict(model.as_dict(), SCHEMAS["ap_lumbar"])


def film(spread, implausibility):
    return {"spread": spread, "implausibility": implausibility}


def test_the_out_of_distribution_score_combines_the_p_values_of_both_signs():
    good = [film(k / 100, float(k)) for k in range(1, 100)]
    trust = fit_trust(good)
    # Ten of the 99 have a spread of 0.90 or more, itself the eleventh of a hundred; so with the other sign.
    assert trust.score(film(0.90, 90.0)) == pytest.approx(-4 * np.log(0.11))
    assert trust.score(film(0.0, 0.0)) == pytest.approx(0)
    assert trust.p_value(trust.score(film(0.0, 0.0))) == 1
    assert trust.p_value(trust.score(film(2.0, 200.0))) == pytest.approx(1 / 100)
    assert trust.score(film(np.nan, 200.0)) == trust.score(film(2.0, 200.0))
    assert TypeAdapter(TrustModel).validate_json(json.dumps(asdict(trust))) == trust


def test_good_films_are_trusted_and_odd_ones_are_not(model, spines):
    def signs(points, score=0.9, presence=1.0):
        scores = np.where(LUMBAR.exists, score, np.nan)
        prediction = SimpleNamespace(points_xy_image=points, scores=scores, presence=np.full(6, presence))
        return signs_of(prediction, model)

    rng = np.random.default_rng(0)
    trust = fit_trust([signs(spine, 0.9 + rng.uniform(-0.02, 0.02)) for spine in spines[100:]])
    usual = trust.score(signs(spines[90]))
    spine = spines[130]
    for odd in (signs(spine * (1, -1)), signs(spine, 0.6), signs(spine, presence=0)):
        assert trust.score(odd) > usual + 4
