"""Labels that cannot be right: found from the corners alone, image by image, before they train anything.

A finding has a severity in 0..1. At 0.5 and above a person should check the image; 1 is certain. Ratios of
steps and sizes are compared with what is usual for the level (its median over the images), so that the small
vertebrae of the neck are no findings.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import cv2
import numpy as np

from vertebra_kp.core.anatomy import CORNERS, OUTLINE, Schema, State
from vertebra_kp.data.record import Record

NOT_CONVEX = "not_convex"  # a finding's kind

# A finding of each kind has severity 0.5 at its limit and rises in proportion. The limits were set on AASCE's
# training part, by the images on either side of them.
OVERLAP_LIMIT = 0.15  # intersection over the smaller of two neighbours
STEP_LIMIT = 0.55  # log-ratio of a step between neighbours to what is usual: 1.7 times
WIDTH_LIMIT = 0.5  # log-ratio of a width
FLAT_LIMIT = 1.2  # log-ratio of a height: 3.3 times
WEDGE_LIMIT = 1.1  # log-ratio of the left and the right height: 3 times
TILT_LIMIT_DEG = 32.0  # between neighbours
EVEN_STEPS = 2.5  # longest step over the median one, in whole spines without a gap
OUTSIZED = 4.0  # times the image's median height: no vertebra
SAME_PLACE = 0.3  # of a step: vertebrae nearer than this were labelled twice
FILMS_FOR_USUAL = 20  # with fewer images, the image's own median is what is usual


@dataclass(frozen=True)
class Finding:
    """What may be wrong with an image's labels. ``level`` is empty where the whole image is meant.

    ``order`` and ``corners`` are certain repairs: the level (or corner) that belongs at each place.
    """

    film: str
    kind: str
    level: str
    severity: float
    proposal: str
    order: tuple[int, ...] | None = None
    corners: tuple[int, ...] | None = None


def audit_labels(records: Sequence[Record], schema: Schema) -> list[Finding]:
    """Findings of all labelled records, worst first. Images are judged after their certain repairs."""
    findings: list[Finding] = []
    shapes = []
    for record in records:
        if record.points_xy_image is None or record.states is None or not (record.states == State.LABELLED).any():
            continue
        points = np.where((record.states == State.LABELLED)[..., None], record.points_xy_image, np.nan)
        certain = order_findings(record.id, points, schema)
        certain += corner_findings(record.id, repaired(points, certain, schema), schema)
        findings += certain
        shapes.append((record.id, repaired(points, certain, schema)))
    usual = _usual([points for _, points in shapes])
    for film, points in shapes:
        findings += shape_findings(film, points, schema, usual)
    return sorted(findings, key=lambda finding: (-finding.severity, finding.film, finding.kind, finding.level))


def repaired(points: np.ndarray, findings: Sequence[Finding], schema: Schema) -> np.ndarray:
    """Corners ``[levels, 4, 2]`` after the certain repairs: levels first, then corners."""
    points = points.copy()
    for finding in findings:
        if finding.order is not None:
            points = points[list(finding.order)]
    for finding in findings:
        if finding.corners is not None:
            level = schema.levels.index(finding.level)
            points[level] = points[level, list(finding.corners)]
    return points


def order_findings(film: str, points: np.ndarray, schema: Schema) -> list[Finding]:
    """Vertebrae that do not come from head to foot.

    Sorting is certain where it makes the steps even, or where it only exchanges vertebrae labelled at one place.
    """
    known = np.flatnonzero(np.isfinite(points).all(axis=2).sum(axis=1) >= 2)  # S1 has two corners
    if len(known) < 3:
        return []
    centres = np.nanmean(points[known], axis=1)
    rank = np.argsort(centres[:, 1], kind="stable")
    by_height = known[rank]
    if (by_height == known).all():
        return []
    if (by_height == known[::-1]).all():
        return [Finding(film, "order", "", 0.8, "all are from foot to head; is the image upside down?")]
    moved = [schema.levels[i] for i in known[by_height != known]]
    steps = np.linalg.norm(np.diff(centres[rank], axis=0), axis=1)
    usual_step = max(float(np.median(steps)), 1e-9)
    shifted = np.abs(centres[rank, 1] - centres[:, 1]).max() / usual_step
    heights = np.nanmax(points[known, :, 1], axis=1) - np.nanmin(points[known, :, 1], axis=1)
    sound = heights.max() < OUTSIZED * np.median(heights)  # else its centre says nothing
    if sound and (steps.max() / usual_step < EVEN_STEPS or shifted < SAME_PLACE):
        order = np.arange(len(points))
        order[known] = by_height
        proposal = f"sort from head to foot ({moved[0]}..{moved[-1]} move)"
        return [Finding(film, "order", "", 1.0, proposal, order=tuple(map(int, order)))]
    return [Finding(film, "order", "", 0.8, f"check {moved[0]}..{moved[-1]}: they are not from head to foot")]


def corner_findings(film: str, points: np.ndarray, schema: Schema) -> list[Finding]:
    """Corners under a wrong name: another order of the four makes the vertebra upright and convex."""
    findings = []
    whole = np.isfinite(points).all(axis=(1, 2))
    for i in np.flatnonzero(~whole):
        for left, right in ((0, 1), (2, 3)):
            if points[i, right, 0] < points[i, left, 0]:  # false where one is unknown
                proposal = f"{CORNERS[left]} lies to the right of {CORNERS[right]}; exchange them"
                findings.append(Finding(film, "corners_swapped", schema.levels[i], 0.9, proposal))
    for i in np.flatnonzero(whole):
        if _is_upright(points[i]):
            continue
        fitting = [order for order in permutations(range(4)) if _is_upright(points[i, list(order)])]
        level = schema.levels[i]
        if len(fitting) == 1:
            proposal = "the corners are really " + ", ".join(CORNERS[j] for j in fitting[0])
            findings.append(Finding(film, "corners_swapped", level, 1.0, proposal, corners=fitting[0]))
        else:
            proposal = "no single order of the corners makes a vertebra; label it anew"
            findings.append(Finding(film, NOT_CONVEX, level, 0.9, proposal))
    if sum(f.corners is not None for f in findings) > whole.sum() / 2:  # turned, or labelled on a mirror image
        return [replace(f, corners=None, proposal=f"{f.proposal}, or the image is turned") for f in findings]
    return findings


def _is_upright(corners: np.ndarray) -> bool:
    """TL, TR, BL, BR go round a convex outline, TL to TR pointing right and TL to BL down."""
    outline = corners[OUTLINE]
    sides = np.roll(outline, -1, axis=0) - outline
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    across = corners[1] + corners[3] - corners[0] - corners[2]
    return bool((turns > 0).all() and across[0] > abs(across[1]) * 0.2)


def shape_findings(film: str, points: np.ndarray, schema: Schema, usual: dict[str, np.ndarray]) -> list[Finding]:
    """Overlapping, flat, wedged, wide, tilted and unevenly spaced vertebrae."""
    features = _features(points)
    findings = []

    def check(kind: str, values: np.ndarray, limit: float, proposal: str) -> None:
        for i in np.flatnonzero(values >= limit):
            severity = min(1.0, 0.5 * float(values[i]) / limit)
            findings.append(Finding(film, kind, schema.levels[i], severity, proposal.format(schema.levels[i])))

    def unusual(name: str) -> np.ndarray:
        values = features[name]
        values = values - np.nanmedian(values) if np.isfinite(values).any() else values
        return np.nan_to_num(values - usual[name])

    step, height = unusual("step"), unusual("height")
    check("overlap", features["overlap"], OVERLAP_LIMIT, "{} and the next level overlap")
    check("missing_level", step, STEP_LIMIT, "a vertebra may be missing below {}")
    check("near_duplicate", -step, STEP_LIMIT, "{} and the next level may be one vertebra")
    check("flat", -height, FLAT_LIMIT, "{} has hardly any height")
    check("tall", height, FLAT_LIMIT, "{} is much higher than usual")
    check("width", np.abs(unusual("width")), WIDTH_LIMIT, "{} is wider or narrower than its neighbours")
    check("wedge", np.abs(np.nan_to_num(features["wedge"])), WEDGE_LIMIT, "one side of {} has hardly any height")
    check("tilt", np.nan_to_num(features["tilt"]), TILT_LIMIT_DEG, "{} and the next level differ in tilt")
    return findings


def _usual(shapes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Median over images of each level's log step, height and width, each less its image's own median."""
    usual = {name: np.zeros(1) for name in ("step", "height", "width")}
    if len(shapes) >= FILMS_FOR_USUAL:
        features = [_features(points) for points in shapes]
        for name in usual:
            table = np.array([f[name] for f in features])
            with warnings.catch_warnings():  # of levels that no image has
                warnings.simplefilter("ignore", RuntimeWarning)
                usual[name] = np.nanmedian(table - np.nanmedian(table, axis=1, keepdims=True), axis=0)
    return usual


def _features(points: np.ndarray) -> dict[str, np.ndarray]:
    """Per level: log height and width, log left over right height; per pair of levels: log step, tilt, overlap."""
    top_left, top_right, bottom_left, bottom_right = (points[:, j] for j in range(4))

    def length(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum(np.linalg.norm(b - a, axis=-1), 1e-3)

    left, right = length(top_left, bottom_left), length(top_right, bottom_right)
    centres = points.mean(axis=1)
    across = (top_right + bottom_right - top_left - bottom_left) / 2
    tilt = np.rad2deg(np.arctan2(across[:, 1], across[:, 0]))
    return {
        "height": np.log((left + right) / 2),
        "width": np.log((length(top_left, top_right) + length(bottom_left, bottom_right)) / 2),
        "wedge": np.log(left / right),
        "step": np.log(length(centres[:-1], centres[1:])),
        "tilt": np.abs((np.diff(tilt) + 180) % 360 - 180),
        "overlap": np.array([_overlap(a, b) for a, b in pairwise(points)]),
    }


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection of two vertebrae over the smaller one's area; 0 where a corner is unknown."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return 0.0
    one, other = (cv2.convexHull(corners[OUTLINE].astype(np.float32)) for corners in (first, second))
    smaller = min(cv2.contourArea(one), cv2.contourArea(other))
    area, _ = cv2.intersectConvexConvex(one, other)
    return float(area / smaller) if smaller > 0 else 1.0
