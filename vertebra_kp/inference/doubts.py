"""Why an image needs a second opinion: what the stages say of themselves, before any calibration."""

from typing import Literal

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, VIEWS, Schema
from vertebra_kp.inference.level_names import Names
from vertebra_kp.inference.spine_decoding import FoundSpine

Doubt = Literal[
    "spine not found", "view", "upside down", "names uncertain", "number of vertebrae", "cut off", "implausible"
]

LEAST_VERTEBRAE = 3  # a spine of fewer is none
SURE_NAMES = 0.9  # probability of the names from which they are not doubted: 13 of 14 wrong ones lie below
OWN_VIEW = 0.5  # probability of the network's own view below which nothing is measured
WEAK = 0.35  # score of a vertebra below which it is weak
MOST_WEAK = 0.15  # share of weak vertebrae from which a spine is implausible
STEP_RATIO = 1.7  # of neighbouring distances: more is a vertebra left out, or none
MEANINGS: dict[Doubt, str] = {
    "spine not found": "no row of vertebrae was found",
    "view": "the image shows the spine from another side than the network measures",
    "upside down": "names fit better to the image turned by 180 degrees",
    "names uncertain": "vertebrae may be named a level too high or too low",
    "number of vertebrae": "another number of vertebrae is likely (16 or 18 between neck and sacrum)",
    "cut off": "a vertebra is cut off by the image's edge",
    "implausible": "a vertebra is found only weakly or not at all, or the distances between vertebrae jump",
}


def doubts_of(
    spine: FoundSpine,
    names: Names,
    view: np.ndarray,
    schema: Schema,
    size: tuple[int, int],
    *,
    upside_down: bool = False,
) -> tuple[Doubt, ...]:
    """What is doubtful of a spine in the pixels of an image of ``size`` (height, width)."""
    if len(spine) < LEAST_VERTEBRAE:
        return ("spine not found",)
    if view[VIEWS.index(schema.view)] < OWN_VIEW:
        return ("view",)
    found: list[Doubt] = []
    if upside_down:
        found.append("upside down")
    if names.probability < SURE_NAMES:
        found.append("names uncertain")
    if names.alternative is not None:
        found.append("number of vertebrae")
    height, width = size
    outside = (spine.corners < 0).any(axis=-1) | (spine.corners > (width, height)).any(axis=-1)
    outside &= _asked_for(names, schema)
    if outside.any():
        found.append("cut off")
    gaps = np.linalg.norm(np.diff(spine.centres, axis=0), axis=1)
    ratios = np.maximum(gaps[1:] / gaps[:-1], gaps[:-1] / gaps[1:])
    filled_in = spine.scores == 0
    if (ratios > STEP_RATIO).any() or filled_in.any() or (spine.scores < WEAK).mean() > MOST_WEAK:
        found.append("implausible")
    return tuple(found)


def _asked_for(names: Names, schema: Schema) -> np.ndarray:
    """``[n, 4]`` bool: the corners that the schema has."""
    asked = np.zeros((len(names.levels), 4), dtype=bool)
    for row, place in zip(asked, names.levels, strict=True):
        if place >= 0 and LEVELS[place] in schema.levels:
            row[:] = schema.exists[schema.levels.index(LEVELS[place])]
    return asked
