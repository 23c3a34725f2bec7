"""Names along the spine: evidence of a few vertebrae names them all."""

import numpy as np
import pytest

from vertebra_kp.core.anatomy import LEVELS, SCHEMAS
from vertebra_kp.inference.level_names import name_levels

WHOLE = SCHEMAS["ap_whole_spine"]


def places(first: str, count: int) -> np.ndarray:
    return LEVELS.index(first) + np.arange(count)


def evidence(names: np.ndarray, sure: float = 0.7, blur: float = 0.1) -> np.ndarray:
    """Log-probabilities: ``sure`` on the name, ``blur`` on both neighbours, the rest spread."""
    p = np.full((len(names), len(LEVELS)), (1 - sure - 2 * blur) / (len(LEVELS) - 3))
    for row, name in zip(p, names, strict=True):
        row[name] = sure
        for neighbour in (name - 1, name + 1):
            if 0 <= neighbour < len(LEVELS):
                row[neighbour] = blur
    return np.log(p / p.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("first", "count"), [("T1", 17), ("T9", 9), ("L1", 5), ("T4", 10)])
def test_any_part_of_the_spine_gets_its_names(first, count):
    wanted = places(first, count)
    named = name_levels(evidence(wanted), WHOLE)
    assert named.levels.tolist() == wanted.tolist()
    assert named.probability > 0.3  # the next best is less than half as likely
    assert named.alternative is None


def test_one_wrong_look_does_not_move_the_others():
    wanted = places("T1", 17)
    looks = evidence(wanted)
    looks[9] = evidence(wanted[9:10] + 2, sure=0.95, blur=0.01)[0]
    assert name_levels(looks, WHOLE).levels.tolist() == wanted.tolist()


def test_vertebrae_that_look_alike_leave_the_names_open():
    alike = np.full((6, len(LEVELS)), -np.log(len(LEVELS)))
    assert name_levels(alike, WHOLE).probability < 0.3


def test_eighteen_vertebrae_are_reported():
    names = np.concatenate([places("T1", 12), [LEVELS.index("T12")], places("L1", 5)])
    named = name_levels(evidence(names, sure=0.95, blur=0.01), WHOLE)
    assert named.alternative == "T13"
    assert named.alternative_probability > 0.2


def test_a_pin_names_all_others():
    alike = np.full((6, len(LEVELS)), -np.log(len(LEVELS)))
    named = name_levels(alike, WHOLE, pinned=(5, LEVELS.index("L5")))
    assert named.levels.tolist() == places("T12", 6).tolist()


def test_the_fit_is_the_mean_log_probability_of_the_names():
    wanted = places("T1", 17)
    assert name_levels(evidence(wanted), WHOLE).fit == pytest.approx(np.log(0.71))  # with the floor


def test_vertebrae_past_the_last_level_have_no_name():
    wanted = places("L4", 3)
    named = name_levels(evidence(wanted), SCHEMAS["la_whole_spine"], pinned=(0, LEVELS.index("L5")))
    assert named.levels.tolist() == [LEVELS.index("L5"), LEVELS.index("S1"), -1]
