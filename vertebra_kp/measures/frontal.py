"""Measures of a frontal film: Cobb angles by endplates and by the AASCE protocol, steps to the side.

Axial rotation and the balance of the trunk (C7, pelvis) cannot be had from the corners of T1 to L5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from vertebra_kp.measures.aasce import AASCE_VERTEBRAE, aasce_end_vertebrae
from vertebra_kp.measures.formulas import absolute_angle, angle_of_mid_lines, length_of, percent, side_step
from vertebra_kp.measures.lines import HORIZONTAL, angle_deg, inferior, superior
from vertebra_kp.measures.measurement import Measurement, Spine, lines_fault, measured

CURVES = ("PT", "MT", "TL")  # proximal thoracic, main thoracic, thoracolumbar or lumbar; from head to foot
# Where the apex of a curve of that name lies at the lowest. Source: Lenke et al., J Bone Joint Surg Am 83, 2001.
LAST_APEX = {"PT": "T5", "MT": "T11", "TL": "L5"}


@dataclass(frozen=True)
class Curve:
    """Between the superior endplate of ``upper`` and the inferior one of ``lower`` (indices of levels).

    ``angle_deg`` is signed: positive where the upper endplate is turned clockwise against the lower one, which is
    a curve bulging to the image's left.
    """

    upper: int
    lower: int
    apex: int
    angle_deg: float


def measure_frontal(spine: Spine) -> list[Measurement]:
    """All measures of a frontal film, from head to foot."""
    return [*_cobb(spine), *_aasce(spine), *_side_steps(spine)]


def find_curves(superior_deg: np.ndarray, inferior_deg: np.ndarray, first_level: int = 0) -> list[Curve]:
    """The largest curve and those of the opposite direction that share an end vertebra with it, from head to foot.

    Slopes ``[levels]`` of the endplates, degrees, of neighbouring levels from ``first_level`` on. At most
    three curves; none for fewer than two levels, or where nothing turns. The end vertebrae are those between whose
    outer endplates the angle is largest (Cobb 1948).
    """
    pair = superior_deg[:, None] - inferior_deg[None, :]  # [upper, lower]
    upper, lower = np.triu_indices(len(pair), k=1)
    if not len(upper) or not pair[upper, lower].any():
        return []
    best = np.abs(pair[upper, lower]).argmax()
    ends = [(int(upper[best]), int(lower[best]))]
    while len(ends) < len(CURVES):
        # The next curve is the larger of the two that go on above the first and below the last.
        top, bottom = ends[0][0], ends[-1][1]
        above = -np.sign(pair[ends[0]]) * pair[:top, top]
        below = -np.sign(pair[ends[-1]]) * pair[bottom, bottom + 1 :]
        most_above, most_below = (float(side.max(initial=0.0)) for side in (above, below))
        if max(most_above, most_below) <= 0:
            break
        if most_above >= most_below:
            ends.insert(0, (int(above.argmax()), top))
        else:
            ends.append((bottom, bottom + 1 + int(below.argmax())))
    curves = []
    for i, j in ends:
        # The apex lies flattest between the end vertebrae, whose tilts it passes half-way.
        tilt = (superior_deg[i : j + 1] + inferior_deg[i : j + 1]) / 2
        apex = i + int(np.abs(tilt - (superior_deg[i] + inferior_deg[j]) / 2).argmin())
        curves.append(Curve(first_level + i, first_level + j, first_level + apex, float(pair[i, j])))
    return curves


def name_curves(curves: list[Curve], levels: tuple[str, ...]) -> dict[str, Curve]:
    """The largest curve by its apex, its neighbours by their order; what lies beyond PT or TL is left out."""
    if not curves:
        return {}
    main = max(range(len(curves)), key=lambda k: abs(curves[k].angle_deg))
    apex = curves[main].apex
    name = next(n for n, last in LAST_APEX.items() if last in levels and apex <= levels.index(last))
    first = CURVES.index(name) - main
    return {CURVES[first + k]: curve for k, curve in enumerate(curves) if 0 <= first + k < len(CURVES)}


def _cobb(spine: Spine) -> Iterator[Measurement]:
    """The largest angle of what is visible, and for a whole spine those of the three regions."""
    levels, points = spine.schema.levels, spine.points_xy_image.astype(np.float64)
    faults = [lines_fault(spine, (superior(i), inferior(i))) for i in range(len(levels))]
    missing = next(filter(None, faults), None)
    parts = np.ma.clump_unmasked(np.ma.masked_array(levels, [fault is not None for fault in faults]))
    above, below = angle_deg(HORIZONTAL, points[:, [1, 3]] - points[:, [0, 2]]).T  # of both endplates
    curves = [c for part in parts for c in find_curves(above[part], below[part], int(part.start))]
    named = {"main": max(curves, key=lambda curve: abs(curve.angle_deg), default=None)}
    if len(levels) == AASCE_VERTEBRAE:
        # Over a gap nobody knows how the spine runs, so that no curve has a region.
        by_region = name_curves(curves, levels) if len(parts) == 1 else {}
        named |= {name: by_region.get(name) for name in CURVES}
    for name, curve in named.items():
        if curve is None:
            why = missing or "no curve there turns that way"
            yield Measurement(f"cobb_{name.lower()}", "", "deg", None, why, unsigned=True, ends_found=True)
            continue
        beyond = [faults[i] for i in (curve.upper - 1, curve.lower + 1) if 0 <= i < len(levels) and faults[i]]
        reason = f"the curve may go on where {beyond[0]}" if beyond else None
        lines = superior(curve.upper), inferior(curve.lower)
        at, angle = f"{levels[curve.upper]}-{levels[curve.lower]}", absolute_angle(*lines)
        of_curve = partial(measured, spine, at, unsigned=True, ends_found=True, reason=reason)
        yield of_curve(f"cobb_{name.lower()}", "deg", lines, angle)


def _aasce(spine: Spine) -> Iterator[Measurement]:
    """The three angles of the AASCE protocol, between mid-lines; of whole spines only."""
    levels, size = spine.schema.levels, spine.size
    if len(levels) != AASCE_VERTEBRAE or size is None:
        return
    every = [line(i) for i in range(AASCE_VERTEBRAE) for line in (superior, inferior)]
    if reason := lines_fault(spine, every):
        for k in (1, 2, 3):
            yield Measurement(f"cobb_aasce_{k}", "", "deg", None, reason, unsigned=True, ends_found=True)
        return
    pairs = aasce_end_vertebrae(spine.points_xy_image.astype(np.float64), size[0])
    for k, (upper, lower) in enumerate(pairs, 1):
        lines = [line(i) for i in (upper, lower) for line in (superior, inferior)]
        of_curve = partial(measured, spine, f"{levels[upper]}-{levels[lower]}", unsigned=True, ends_found=True)
        yield of_curve(f"cobb_aasce_{k}", "deg", lines, angle_of_mid_lines(upper, lower))


def _side_steps(spine: Spine) -> Iterator[Measurement]:
    """Laterolisthesis: step of the middle of the upper body's endplate on the lower's, positive to image left."""
    levels = spine.schema.levels
    for upper, lower in pairwise(range(len(levels))):
        of_disc = partial(measured, spine, f"{levels[upper]}/{levels[lower]}", across=(upper, lower))
        above, below = plates = inferior(upper), superior(lower)
        step = side_step(above, below)
        yield of_disc("laterolisthesis_mm", "mm", plates, step)
        yield of_disc("laterolisthesis_percent", "%", plates, percent(step, length_of(below)))
