"""Each doubt from the spine that deserves it, and none from one that does not."""

from dataclasses import replace

import numpy as np
import pytest

from vertebra_kp.core.anatomy import LEVELS, SCHEMAS
from vertebra_kp.inference.doubts import doubts_of
from vertebra_kp.inference.level_names import Names
from vertebra_kp.inference.spine_decoding import FoundSpine

WHOLE, AP, LA = SCHEMAS["ap_whole_spine"], np.array([0.9, 0.1]), np.array([0.1, 0.9])
STEP, SIZE = 40.0, (900, 400)


def spine(count: int = 17, top: float = 120.0) -> FoundSpine:
    centres = np.stack([np.full(count, 200.0), top + STEP * np.arange(count)], axis=1)
    corners = centres[:, None] + np.array([[-25, -14], [25, -14], [-25, 14], [25, 14.0]])
    even = np.ones(count)
    levels = np.zeros((count, len(LEVELS)))
    return FoundSpine(centres, corners, STEP * even, even, np.ones((count, 4)), levels, float(count))


def names(first: str = "T1", count: int = 17, probability: float = 0.99, **more) -> Names:
    return Names(LEVELS.index(first) + np.arange(count), probability, **more)


def test_a_good_spine_is_not_doubted():
    assert doubts_of(spine(), names(), AP, WHOLE, SIZE) == ()


@pytest.mark.parametrize(
    ("doubt", "arguments", "options"),
    [
        ("spine not found", (spine(2), names(count=2), AP), {}),
        ("view", (spine(), names(), LA), {}),
        ("upside down", (spine(), names(), AP), {"upside_down": True}),
        ("names uncertain", (spine(), names(probability=0.89), AP), {}),
        ("number of vertebrae", (spine(), names(alternative="T13", alternative_probability=0.4), AP), {}),
        ("cut off", (spine(top=10.0), names(), AP), {}),
        ("ends inside", (spine(8), names(count=8), AP), {}),
        ("implausible", (replace(spine(), scores=np.r_[np.ones(16), 0]), names(), AP), {}),
    ],
)
def test_each_doubt_alone(doubt, arguments, options):
    assert doubts_of(*arguments, WHOLE, SIZE, **options) == (doubt,)


def test_distances_that_jump_are_implausible():
    jumps = spine()
    jumps.centres[9:, 1] += 0.8 * STEP
    assert doubts_of(jumps, names(), AP, WHOLE, (1000, 400)) == ("implausible",)


def test_what_the_schema_lacks_may_be_cut_off():
    with_neck = spine(18, top=5.0)  # C7 is cut, T1 to L5 are not
    assert doubts_of(with_neck, names("C7", 18), AP, WHOLE, SIZE) == ()
