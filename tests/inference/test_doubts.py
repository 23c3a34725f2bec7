"""Each doubt from the spine that deserves it, and none from one that does not."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_job import make_run, thin_efficientnet, tiny_config

from vertebra_kp.core.anatomy import LEVELS, SCHEMAS
from vertebra_kp.inference.corners import CornerPredictor
from vertebra_kp.inference.doubts import doubts_by_channel, doubts_of
from vertebra_kp.inference.level_names import Names
from vertebra_kp.inference.prediction import check_finite
from vertebra_kp.inference.spine_decoding import FoundSpine
from vertebra_kp.models import library

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


def test_weak_vertebrae_beyond_the_levels_that_are_asked_for_are_no_reason_to_doubt():
    longer = spine(19)
    longer.scores[:2] = 0.0  # in the neck, filled in
    above = replace(names(count=19), levels=np.r_[LEVELS.index("T1") - 2 : LEVELS.index("L5") + 1])
    assert doubts_of(longer, above, AP, WHOLE, (1000, 400)) == ()
    longer.scores[5] = 0.0
    assert doubts_of(longer, above, AP, WHOLE, (1000, 400)) == ("implausible",)


def test_distances_that_jump_are_implausible():
    jumps = spine()
    jumps.centres[9:, 1] += 0.8 * STEP
    assert doubts_of(jumps, names(), AP, WHOLE, (1000, 400)) == ("implausible",)


def test_what_the_schema_lacks_may_be_cut_off():
    with_neck = spine(18, top=5.0)  # C7 is cut, T1 to L5 are not
    assert doubts_of(with_neck, names("C7", 18), AP, WHOLE, SIZE) == ()


# --- networks with a channel for every corner -----------------------------------------------------------------


def placed(schema=WHOLE):
    """Corners of a spine of all levels, as a network places them, with scores and presence."""
    good = spine(len(schema.levels))
    corners = np.where(schema.exists[..., None], good.corners, np.nan)
    return corners, np.where(schema.exists, 0.8, np.nan), np.ones(len(corners))


@pytest.mark.parametrize("schema", [WHOLE, SCHEMAS["la_lumbar"], SCHEMAS["la_cervical"]])
def test_corners_of_a_good_spine_are_not_doubted(schema):
    assert doubts_by_channel(*placed(schema), schema, SIZE) == ()


def test_corners_that_no_spine_has_are_doubted():
    corners, scores, presence = placed()
    on_one_place, everywhere, jump = (corners.copy() for _ in range(3))
    on_one_place[4] = corners[4, 0]
    everywhere[:] = np.random.default_rng(0).uniform(0, 400, (17, 4, 2))
    jump[9:, :, 1] += 3 * STEP
    for wrong in (on_one_place, everywhere, np.full_like(corners, 7.0), jump):
        assert doubts_by_channel(wrong, scores, presence, WHOLE, SIZE) == ("implausible",)
    assert doubts_by_channel(corners, np.full_like(scores, 0.05), presence, WHOLE, SIZE) == ("implausible",)
    assert doubts_by_channel(corners, scores, np.zeros(17), WHOLE, SIZE) == ("spine not found",)


def test_a_level_that_is_absent_leaves_no_jump():
    corners, scores, presence = placed()
    presence[[0, 8, 9]] = 0
    assert doubts_by_channel(corners, scores, presence, WHOLE, SIZE) == ()


NOISE = np.random.default_rng(0).integers(0, 256, (96, 64), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "blank"),
    [
        (np.zeros((96, 64), np.uint8), True),
        (np.full((96, 64), 255, np.uint8), True),
        (np.full((1, 1), 9, np.uint8), True),
        (NOISE[:15], True),
        (NOISE, False),
    ],
)
def test_an_image_that_shows_nothing_has_no_vertebra(monkeypatch, image, blank):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    job, state = make_run(tiny_config())
    predictor = CornerPredictor(state.network, job.config, 0)
    found = predictor.predict(image)
    assert found.doubts, "random weights: noise is doubted, too"
    if blank:
        assert found.doubts == ("spine not found",)
        assert not found.presence.any()
        assert np.isnan(found.points_xy_image).all()
    check_finite(found, predictor.schema)
