"""Labels that cannot be right: found from the corners alone, film by film, before they train anything.

A finding has a severity in 0..1. At 0.5 and above a person should look at the film; 1 is certain. Ratios of
steps and sizes are compared with what is usual for the level (its median over the films), so that the small
vertebrae of the neck are no findings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import cv2
import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema, State
from vertebra_kp.data.record import Record

NOT_CONVEX = "not_convex"  # a finding's kind
OUTLINE = [0, 1, 3, 2]  # TL, TR, BR, BL: the corners on their way round the vertebra

# A finding of each kind has severity 0.5 at its limit and rises in proportion. The limits were set on AASCE's
# training part by looking at the films on either side of them.
OVERLAP_LIMIT = 0.15  # intersection over the smaller of two neighbours
STEP_LIMIT = 0.55  # log-ratio of a step between neighbours to what is usual: 1.7 times
WIDTH_LIMIT = 0.5  # log-ratio of a width
FLAT_LIMIT = 1.2  # log-ratio of a height: 3.3 times
WEDGE_LIMIT = 1.1  # log-ratio of the left and the right height: 3 times
TILT_LIMIT_DEG = 32.0  # between neighbours
EVEN_STEPS = 2.5  # longest step over the median one, in whole spines without a gap
OUTSIZED = 4.0  # times the film's median height: no vertebra
SAME_PLACE = 0.3  # of a step: vertebrae nearer than this were drawn twice
FILMS_FOR_USUAL = 20  # with fewer films, the film's own median is what is usual


@dataclass(frozen=True)
class Finding:
    """What may be wrong with a film's labels. ``level`` is empty where the whole film is meant.

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
    """Findings of all labelled records, worst first. Films are judged after their certain repairs."""
    findings: list[Finding] = []
    shapes = []
    for record in records:
        if record.points_xy_image is None or record.states is None:
            continue
        labelled = record.states == State.LABELLED
        if not labelled.any():
            continue
        points = np.where(labelled[..., None], record.points_xy_image, np.nan)
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

    Sorting is certain where it makes the steps even, or where it only exchanges vertebrae drawn at one place.
    """
    known = np.flatnonzero(np.isfinite(points).all(axis=2).sum(axis=1) >= 2)  # S1 has two corners
    centres = np.full((len(points), 2), np.nan)
    centres[known] = np.nanmean(points[known], axis=1)
    if len(known) < 3:
        return []
    by_height = known[np.argsort(centres[known, 1], kind="stable")]
    if (by_height == known).all():
        return []
    if (by_height == known[::-1]).all():
        return [Finding(film, "order", "", 0.8, "all are from foot to head; is the film upside down?")]
    order = np.arange(len(points))
    order[known] = by_height
    moved = [schema.levels[i] for i in known if order[i] != i]
    steps = np.linalg.norm(np.diff(centres[by_height], axis=0), axis=1)
    usual_step = max(float(np.median(steps)), 1e-9)
    shifted = np.abs(centres[order, 1] - centres[:, 1])[known].max() / usual_step
    heights = np.nanmax(points[known, :, 1], axis=1) - np.nanmin(points[known, :, 1], axis=1)
    sound = heights.max() < OUTSIZED * np.median(heights)  # else its centre says nothing
    if sound and (steps.max() / usual_step < EVEN_STEPS or shifted < SAME_PLACE):
        told = f"sort from head to foot ({moved[0]}..{moved[-1]} move)"
        return [Finding(film, "order", "", 1.0, told, order=tuple(map(int, order)))]
    return [Finding(film, "order", "", 0.8, f"look at {moved[0]}..{moved[-1]}: they are not from head to foot")]


def corner_findings(film: str, points: np.ndarray, schema: Schema) -> list[Finding]:
    """Corners under a wrong name: another order of the four makes the vertebra upright and convex."""
    findings = []
    whole = np.isfinite(points).all(axis=(1, 2))
    for i in np.flatnonzero(~whole):
        for left, right in ((0, 1), (2, 3)):
            if points[i, right, 0] < points[i, left, 0]:  # false where one is unknown
                told = f"{CORNERS[left]} lies to the right of {CORNERS[right]}; exchange them"
                findings.append(Finding(film, "corners_swapped", schema.levels[i], 0.9, told))
    for i in np.flatnonzero(whole):
        if _is_upright(points[i]):
            continue
        fitting = [order for order in permutations(range(4)) if _is_upright(points[i, list(order)])]
        level = schema.levels[i]
        if len(fitting) == 1:
            told = "corners are " + ", ".join(CORNERS[j] for j in fitting[0]) + " in truth"
            findings.append(Finding(film, "corners_swapped", level, 1.0, told, corners=fitting[0]))
        else:
            told = "no single order of the corners makes a vertebra; draw it anew"
            findings.append(Finding(film, NOT_CONVEX, level, 0.9, told))
    certain = [finding for finding in findings if finding.corners is not None]
    if len(certain) > whole.sum() / 2:  # the film is turned, or its labels were made on a mirror image
        return [replace(f, corners=None, proposal=f"{f.proposal}, or the film is turned") for f in findings]
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

    def look(kind: str, values: np.ndarray, limit: float, proposal: str) -> None:
        for i in np.flatnonzero(values >= limit):
            severity = min(1.0, 0.5 * float(values[i]) / limit)
            findings.append(Finding(film, kind, schema.levels[i], severity, proposal.format(schema.levels[i])))

    def unusual(name: str) -> np.ndarray:
        values = features[name]
        values = values - np.nanmedian(values) if np.isfinite(values).any() else values
        return np.nan_to_num(values - usual[name])

    step, height = unusual("step"), unusual("height")
    look("overlap", features["overlap"], OVERLAP_LIMIT, "{} and the next level are drawn over each other")
    look("missing_level", step, STEP_LIMIT, "a vertebra may be missing below {}")
    look("near_duplicate", -step, STEP_LIMIT, "{} and the next level may be one vertebra")
    look("flat", -height, FLAT_LIMIT, "{} has hardly any height")
    look("tall", height, FLAT_LIMIT, "{} is much higher than usual")
    look("width", np.abs(unusual("width")), WIDTH_LIMIT, "{} is wider or narrower than its neighbours")
    look("wedge", np.abs(np.nan_to_num(features["wedge"])), WEDGE_LIMIT, "one side of {} has hardly any height")
    look("tilt", np.nan_to_num(features["tilt"]), TILT_LIMIT_DEG, "{} and the next level differ in tilt")
    return findings


def _usual(shapes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Median over films of each level's log step, height and width, each less its film's own median."""
    names = ("step", "height", "width")
    if len(shapes) < FILMS_FOR_USUAL:
        return {name: np.zeros(1) for name in names}
    features = [_features(points) for points in shapes]
    usual = {}
    for name in names:
        table = np.array([f[name] for f in features])
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
    outlines = [cv2.convexHull(corners[OUTLINE].astype(np.float32)) for corners in (first, second)]
    smaller = min(cv2.contourArea(outline) for outline in outlines)
    area, _ = cv2.intersectConvexConvex(*outlines)
    return float(area / smaller) if smaller > 0 else 1.0
