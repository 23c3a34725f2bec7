"""Missing vertebrae cost an error: they are put where the spine would go on."""

import numpy as np

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.evaluation.missing import filled

LUMBAR = SCHEMAS["la_lumbar"]


def spine() -> np.ndarray:
    points = np.full((6, 4, 2), np.nan)
    points[...] = np.arange(6)[:, None, None] * (10.0, 100.0) + np.arange(4)[None, :, None] * (7.0, 0.0)
    points[~LUMBAR.exists] = np.nan
    return points


def test_missing_ends_and_gaps_of_an_even_spine_are_filled_exactly():
    missing = spine()
    missing[[0, 3]] = np.nan
    np.testing.assert_allclose(filled(missing, LUMBAR, (600, 200)), spine())


def test_without_a_spine_all_corners_lie_in_the_middle():
    points = filled(np.full((6, 4, 2), np.nan), LUMBAR, (600, 200))
    assert (points[LUMBAR.exists] == (100, 300)).all()
    assert np.isnan(points[~LUMBAR.exists]).all()


def test_what_was_found_stays():
    np.testing.assert_array_equal(filled(spine(), LUMBAR, (600, 200)), spine())
