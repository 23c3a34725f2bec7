"""Found, named, doubted: counted by hand."""

import numpy as np
import pytest

from vertebra_kp.core.anatomy import LEVELS, SCHEMAS, UNKNOWN
from vertebra_kp.data.spine_films import Vertebrae
from vertebra_kp.evaluation.framing import framing_figures, framing_result
from vertebra_kp.inference.prediction import Prediction

WHOLE = SCHEMAS["ap_whole_spine"]
STEP = 40.0


def spine(first: str = "T1", count: int = 17) -> Vertebrae:
    centres = np.stack([np.full(count, 200.0), 100 + STEP * np.arange(count)], axis=1)
    half = np.array([[-25, -14], [25, -14], [-25, 14], [25, 14.0]])
    return Vertebrae(centres, centres[:, None] + half, LEVELS.index(first) + np.arange(count))


def predicted(true: Vertebrae, *, lower: int = 0, off: float = 0.0, absent=(), doubts=()) -> Prediction:
    """The true spine with names ``lower`` levels too low, moved sideways by ``off`` px, without some levels."""
    points, presence = np.full((17, 4, 2), np.nan), np.zeros(17)
    for level, corners in zip(true.levels + lower, true.corners, strict=True):
        row = level - LEVELS.index("T1")
        if 0 <= row < 17 and row not in absent:
            points[row], presence[row] = corners + np.array([off, 0]), 1.0
    covariances = np.full((17, 4, 2, 2), np.nan)
    view = np.array([0.9, 0.1])
    return Prediction(
        "f", (900, 400), points, covariances, points[..., 0], presence, np.eye(3), view, doubts=doubts
    )


def test_a_perfect_prediction_is_found_named_and_usable():
    result = framing_result("f", spine(), 0, predicted(spine()), WHOLE)
    assert (result.vertebrae, result.found, result.named) == (17, 17, 17)
    assert result.shift == 0
    assert result.usable
    assert not result.wrong
    assert result.view_right
    assert max(result.corner_errors) == 0
    assert result.curve_error_deg == pytest.approx(0)


def test_one_level_too_low_is_found_and_not_named():
    result = framing_result("f", spine(), 0, predicted(spine(), lower=1), WHOLE)
    assert (result.found, result.named, result.shift) == (16, 0, 1.0)  # L5 has no name left
    assert result.wrong


def test_beyond_half_a_step_nothing_is_found():
    assert framing_result("f", spine(), 0, predicted(spine(), off=0.49 * STEP), WHOLE).found == 17
    far = framing_result("f", spine(), 0, predicted(spine(), off=0.51 * STEP), WHOLE)
    assert (far.found, far.usable) == (0, False)


def test_corner_errors_are_in_steps():
    result = framing_result("f", spine(), 0, predicted(spine(), off=0.1 * STEP), WHOLE)
    np.testing.assert_allclose(result.corner_errors, 0.1)


def test_vertebrae_without_names_or_corners_count_as_found_only():
    true = spine()
    unnamed = Vertebrae(true.centres, np.full_like(true.corners, np.nan), np.full(17, UNKNOWN))
    result = framing_result("f", unnamed, 0, predicted(true), WHOLE)
    assert (result.found, result.with_name, result.named, result.shift) == (17, 0, 0, None)
    assert result.corner_errors == ()
    assert result.curve_error_deg is None


def test_figures_count_what_is_wrong_and_not_doubted():
    true = spine()
    results = [
        framing_result("right", true, 0, predicted(true), WHOLE),
        framing_result("right, doubted", true, 0, predicted(true, doubts=("names uncertain",)), WHOLE),
        framing_result("shifted", true, 0, predicted(true, lower=1), WHOLE),
        framing_result("lost, doubted", true, 0, predicted(true, absent=range(5), doubts=("implausible",)), WHOLE),
    ]
    figures = framing_figures(results)
    assert figures["found"] == (17 + 17 + 16 + 12) / 68
    assert figures["named"] == (17 + 17 + 0 + 12) / 68
    assert figures["usable_images"] == 3
    assert figures["shifted_images"] == 0.25
    assert figures["wrong_without_doubt"] == 1
    assert figures["right_with_doubt"] == 1
