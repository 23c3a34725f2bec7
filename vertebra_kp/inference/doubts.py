"""Why an image needs a second opinion: what the stages say of themselves, and the header of its file."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, PRESENT_FROM, VIEWS, Schema, View
from vertebra_kp.inference.level_names import Names

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomInfo
    from vertebra_kp.inference.spine_decoding import FoundSpine

Doubt = Literal[
    "spine not found",
    "view",
    "upside down",
    "names uncertain",
    "number of vertebrae",
    "cut off",
    "ends inside",
    "implausible",
    "pixels not square",
    "header: view",
    "header: orientation",
    "header: body part",
    "header: laterality",
]

UNMEASURED: frozenset[Doubt] = frozenset({"spine not found", "view", "pixels not square"})  # nothing is then
HEADER_VIEWS: dict[str, View] = {"AP": "AP", "PA": "AP", "frontal": "AP"}
HEADER_VIEWS |= dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "lateral"), "LA")
OBLIQUE = ("RLO", "LLO")
LEAST_VERTEBRAE = 3  # a spine of fewer is none
SURE_NAMES = 0.92  # probability of the names from which they are not doubted; perfect evidence of five gives 0.924
OWN_VIEW = 0.5  # probability of the network's own view below which nothing is measured
WEAK = 0.35  # score of a vertebra below which it is weak
MOST_WEAK = 0.15  # share of weak vertebrae from which a spine is implausible
ROOM = 2.0  # steps between the end of a spine and the image's edge: another vertebra would be seen there
STEP_RATIO = 1.7  # of neighbouring distances: more is a vertebra left out, or none
SMALLEST_SIDE_PX = 16  # of an image: fewer pixels show no spine
COLLAPSED_BELOW = 0.1  # of a heatmap's mass inside its window: the map has no peak worth the name
COLLAPSED_EXTENT = 0.003  # of the image's diagonal: corners that are all as near to each other make no vertebra
# Of neighbouring distances, where a network names vertebrae by its channels: it cannot leave one out, and the
# endplate of the sacrum stands for a whole level.
STEP_RATIO_BY_CHANNEL = 3.0
MEANINGS: dict[Doubt, str] = {
    "spine not found": "no row of vertebrae was found",
    "view": "the image shows the spine from another side than the network measures",
    "upside down": "names fit better to the image turned by 180 degrees",
    "names uncertain": "vertebrae may be named a level too high or too low",
    "number of vertebrae": "another number of vertebrae is likely (16 or 18 between neck and sacrum)",
    "cut off": "a vertebra is cut off by the image's edge",
    "ends inside": "the spine was lost far from the image's edge, before its first or last level",
    "implausible": "a vertebra is found only weakly or not at all, corners lie on one place, or distances jump",
    "pixels not square": "by the file's header pixels are not square, so that angles would be wrong; resample it",
    "header: view": "by the file's header the image shows the spine from another side than the network measures",
    "header: orientation": "by the file's header the image does not stand upright",
    "header: body part": "by the file's header the image shows another part of the body than the network measures",
    "header: laterality": "by the file's header the image shows one of a pair, such as a hand, and not the spine",
}


def doubts_of(
    spine: "FoundSpine",
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
    # What lies beyond the levels of the schema, such as the neck, was hardly marked in training: it says nothing.
    corners_asked = _asked_for(names, schema)
    asked_for = corners_asked.any(axis=1)
    outside = (spine.corners < 0).any(axis=-1) | (spine.corners > (width, height)).any(axis=-1)
    if (outside & corners_asked).any():
        found.append("cut off")
    if _ends_inside(spine, names, schema, size):
        found.append("ends inside")
    gaps = np.linalg.norm(np.diff(spine.centres[asked_for], axis=0), axis=1)
    ratios = np.maximum(gaps[1:] / gaps[:-1], gaps[:-1] / gaps[1:])
    scores = spine.scores[asked_for]
    if (ratios > STEP_RATIO).any() or (scores == 0).any() or (scores < WEAK).sum() > MOST_WEAK * len(scores):
        found.append("implausible")
    return tuple(found)


def header_doubts(header: "DicomInfo", schema: Schema) -> tuple[Doubt, ...]:
    """What the header of a DICOM file says against a network of ``schema``."""
    found: list[Doubt] = []
    if header.pixel_aspect != 1:
        found.append("pixels not square")
    said = {HEADER_VIEWS.get(header.view_position or "")}
    if header.rows_to is not None:
        said.add("AP" if header.rows_to in "LR" else "LA" if header.rows_to in "AP" else None)
    if header.view_position in OBLIQUE or said - {None, schema.view}:
        found.append("header: view")
    if header.columns_to not in (None, "F"):
        found.append("header: orientation")
    if header.body_part is not None and not _shows(header.body_part, schema):
        found.append("header: body part")
    # Of a lateral image it may be the side of the tube.
    if header.laterality in ("L", "R") and schema.view == "AP":
        found.append("header: laterality")
    return tuple(found)


def _shows(body_part: str, schema: Schema) -> bool:
    from vertebra_kp.data.dicom.header import SPINE_PARTS  # here: pydicom takes an eighth of a second

    return any(level[0] in SPINE_PARTS.get(body_part, "") for level in schema.levels)


def is_blank(image: np.ndarray) -> bool:
    """Whether an image ``[H, W]`` shows nothing: all of its pixels are the same, or there are hardly any."""
    return min(image.shape) < SMALLEST_SIDE_PX or image.min() == image.max()


def doubts_by_channel(
    points: np.ndarray, scores: np.ndarray, presence: np.ndarray, schema: Schema, size: tuple[int, int]
) -> tuple[Doubt, ...]:
    """What is doubtful of corners ``[levels, 4, 2]`` px that a network with a channel for each has placed.

    ``scores`` ``[levels, 4]`` and ``presence`` ``[levels]`` in 0..1; the image is of ``size`` (height, width).
    """
    levels = np.flatnonzero(presence >= PRESENT_FROM)
    if not len(levels):
        return ("spine not found",)
    corners, exists = points[levels], schema.exists[levels]
    extent = np.array([np.ptp(own[there], axis=0).max() for own, there in zip(corners, exists, strict=True)])
    centres = np.array([own[there].mean(axis=0) for own, there in zip(corners, exists, strict=True)])
    steps = np.diff(centres, axis=0) / np.diff(levels)[:, None]
    gaps = np.linalg.norm(steps, axis=1)
    turns_back = steps @ (centres[-1] - centres[0]) <= 0
    jumps = np.maximum(gaps[1:], gaps[:-1]) > STEP_RATIO_BY_CHANNEL * np.minimum(gaps[1:], gaps[:-1])
    weak = scores[levels][exists] < COLLAPSED_BELOW
    collapsed = extent < COLLAPSED_EXTENT * np.hypot(*size)
    if collapsed.any() or turns_back.any() or jumps.any() or weak.mean() > MOST_WEAK:
        return ("implausible",)
    return ()


def _ends_inside(spine: "FoundSpine", names: Names, schema: Schema, size: tuple[int, int]) -> bool:
    """Whether an end that is neither the schema's first nor its last level lies away from the image's edge."""
    first, last = (LEVELS.index(level) for level in (schema.levels[0], schema.levels[-1]))
    inside = [
        (ROOM * spine.steps[end] < spine.centres[end]).all()
        and (spine.centres[end] < np.array(size[::-1]) - ROOM * spine.steps[end]).all()
        for end in (0, -1)
    ]
    lowest = names.levels[-1] if names.levels[-1] >= 0 else len(LEVELS)  # -1 lies beyond the sacrum or the skull
    return bool((inside[0] and names.levels[0] > first) or (inside[1] and lowest < last))


def _asked_for(names: Names, schema: Schema) -> np.ndarray:
    """``[n, 4]`` bool: the corners that the schema has."""
    asked = np.zeros((len(names.levels), 4), dtype=bool)
    for row, place in zip(asked, names.levels, strict=True):
        if place >= 0 and LEVELS[place] in schema.levels:
            row[:] = schema.exists[schema.levels.index(LEVELS[place])]
    return asked
