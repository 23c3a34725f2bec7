"""Conformal bounds: what they promise holds on new patients, and is refused where it cannot be promised."""

import numpy as np
import pytest

from vertebra_kp.evaluation.uncertainty.conformal import conformal_quantile, two_sided


def test_one_value_a_patient_is_the_textbook_rank():
    scores = np.arange(1.0, 20.0)  # 19 patients: the 18th of 20 ranks covers 90 percent
    assert conformal_quantile(scores, np.arange(19), 0.9) == 18
    assert conformal_quantile(scores, np.arange(19), 0.95) == 19


def test_too_few_patients_promise_nothing():
    assert conformal_quantile(np.ones(8), np.arange(8), 0.9) == np.inf
    assert conformal_quantile(np.ones(9), np.arange(9), 0.9) == 1
    assert conformal_quantile(np.ones(500), np.zeros(500), 0.9) == np.inf  # one patient, however many corners
    assert conformal_quantile(np.array([]), np.array([]), 0.9) == np.inf


def test_a_patient_with_many_corners_counts_once():
    scores = np.concatenate([np.full(1000, 100.0), np.arange(1.0, 19.0)])
    groups = np.concatenate([np.zeros(1000), np.arange(1, 19)])
    assert conformal_quantile(scores, groups, 0.9) == 18


def test_nan_is_refused():
    with pytest.raises(ValueError, match="nan"):
        conformal_quantile(np.array([1.0, np.nan]), np.arange(2), 0.5)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_new_patients_are_covered_as_often_as_promised(coverage):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        sizes = rng.integers(1, 6, 41)
        level = rng.gamma(2.0, size=41)  # patients differ: corners of one are alike
        scores = np.concatenate([rng.exponential(level[g], sizes[g]) for g in range(41)])
        groups = np.repeat(np.arange(41), sizes)
        bound = conformal_quantile(scores[groups < 40], groups[groups < 40], coverage)
        covered.append((scores[groups == 40] <= bound).mean())
    # Never less than promised, and at most one patient's share more; four standard errors either way.
    assert coverage - 4 * 0.4 / 600**0.5 < np.mean(covered) < coverage + 1 / 41 + 4 * 0.4 / 600**0.5


def test_two_sides_follow_errors_that_are_not_centred():
    errors = np.linspace(-1, 9, 199)
    low, high = two_sided(errors, np.arange(199), 0.9)
    assert (low, high) == (pytest.approx(-0.55, abs=0.06), pytest.approx(8.55, abs=0.06))
