"""Measures of a lateral film: sagittal alignment, endplates, slips, discs, heights and fractures.

What corners cannot give: pelvic incidence and tilt (hips), biconcave fractures (the middle of an endplate).
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

from vertebra_kp.measures.formulas import (
    forward_offset,
    forward_slope,
    forward_step,
    length_of,
    loss_percent,
    mean_of,
    opening,
    percent,
    ratio,
)
from vertebra_kp.measures.grades import genant, meyerding
from vertebra_kp.measures.lines import disc_edge, inferior, superior, wall
from vertebra_kp.measures.measurement import Measurement, Spine, lines_fault, measured

NEEDS_SIDE = "the anterior side is not known"
BACKWARDS = "the sacrum falls backwards: is the film mirrored, or its anterior side another?"
BACKWARDS_FROM_DEG = -10.0  # sacral slopes of 12 to 58 degrees are common, below 0 they are not
# Neither sign nor name of these depends on where the front is.
SIDELESS = frozenset({"disc_height_index_depth", "disc_height_index_body"})
# Name, upper and lower vertebra, the endplate of each, and the side that a positive angle opens to.
CURVATURES = (
    ("cervical_lordosis", "C2", "C7", inferior, inferior, "front"),
    ("thoracic_kyphosis_t1_t12", "T1", "T12", superior, inferior, "back"),
    ("thoracic_kyphosis_t4_t12", "T4", "T12", superior, inferior, "back"),
    ("lumbar_lordosis", "L1", "S1", superior, superior, "front"),
)


def measure_lateral(spine: Spine) -> list[Measurement]:
    """All measures of a lateral film, from head to foot.

    Nothing that has a front is measured where the front is not known, or the sacrum says that it is elsewhere.
    """
    front = spine.anterior_side or "left"
    found = [*_alignment(spine, front), *_discs(spine, front), *_bodies(spine, front)]
    reason = None if spine.anterior_side else NEEDS_SIDE
    slope = next((m.value for m in found if m.name == "sacral_slope"), None)
    if slope is not None and slope < BACKWARDS_FROM_DEG:
        reason = reason or BACKWARDS
    return [m if reason is None or m.name in SIDELESS else _without(m, reason) for m in found]


def _without(measurement: Measurement, reason: str) -> Measurement:
    """Its own reason comes first."""
    return replace(measurement, value=None, grade=None, formula=None, reason=measurement.reason or reason)


def _alignment(spine: Spine, front: str) -> Iterator[Measurement]:
    """Angles of the three regions, slopes of T1 and S1, and the sagittal vertical axis.

    Cervical lordosis: inferior endplates of C2, whose superior one is hidden by the dens, and of C7. Thoracic
    kyphosis: superior endplate of T1 or T4, inferior one of T12; the shoulders often hide T1 to T3. Lumbar
    lordosis: superior endplates of L1 and S1. Slopes: superior endplate against the horizontal, positive where its
    anterior end is the lower one. Source: O'Brien et al., Radiographic Measurement Manual of the Spinal Deformity
    Study Group, 2004.
    """
    level = {name: i for i, name in enumerate(spine.schema.levels)}
    for name, first, last, upper, lower, opens in CURVATURES:
        if {first, last} <= level.keys():
            ends = upper(level[first]), lower(level[last])
            side = front if opens == "front" else _other(front)
            yield measured(spine, f"{first}-{last}", name, "deg", ends, opening(*ends, side))
    for name, of in (("t1_slope", "T1"), ("sacral_slope", "S1")):
        if of in level:
            endplate = superior(level[of])
            yield measured(spine, of, name, "deg", (endplate,), forward_slope(endplate, front))
    if {"C7", "S1"} <= level.keys():
        yield from _sagittal_vertical_axis(spine, level["C7"], level["S1"], front)


def _sagittal_vertical_axis(spine: Spine, c7: int, s1: int, front: str) -> Iterator[Measurement]:
    """How far the centre of C7 lies before the postero-superior corner of S1, horizontally.

    In mm, and in percent of S1's superior endplate, which needs no size of a pixel. The whole endplate must be
    visible for both: it shows where the front is. Source: Glassman et al., Spine 30, 2005.
    """
    sacrum = superior(s1)
    lines = superior(c7), inferior(c7), sacrum
    offset = forward_offset(lines[:2], sacrum, front)
    yield measured(spine, "C7-S1", "c7_sva_mm", "mm", lines, offset)
    yield measured(spine, "C7-S1", "c7_sva_percent", "%", lines, percent(offset, length_of(sacrum)))


def _discs(spine: Spine, front: str) -> Iterator[Measurement]:
    levels, schema = spine.schema.levels, spine.schema
    for upper, lower in pairwise(range(len(levels))):
        of_disc = partial(measured, spine, f"{levels[upper]}/{levels[lower]}", across=(upper, lower))
        above, below = plates = inferior(upper), superior(lower)
        edges = disc_edge(upper, lower, front), disc_edge(upper, lower, _other(front))
        anterior, posterior = heights = length_of(edges[0]), length_of(edges[1])
        height, depth = mean_of(heights), mean_of((length_of(above), length_of(below)))
        yield of_disc("disc_angle", "deg", plates, opening(above, below, front))
        if levels[upper] not in schema.inferior_only:
            last = below if levels[lower] in schema.superior_only else inferior(lower)
            ends = superior(upper), last
            yield of_disc("segmental_angle", "deg", ends, opening(*ends, front))
        step = forward_step(above, below, front)
        three = below, edges[1]  # corners: S1 has no more, and the fourth is not needed
        yield of_disc("slip_mm", "mm", three, step)
        yield of_disc("slip_percent", "%", three, percent(step, length_of(below)), meyerding)
        yield of_disc("anterior_disc_height", "mm", edges[:1], anterior, unsigned=True)
        yield of_disc("posterior_disc_height", "mm", edges[1:], posterior, unsigned=True)
        yield of_disc("disc_height_index_depth", "ratio", (*edges, *plates), ratio(height, depth), unsigned=True)
        if levels[upper] not in schema.inferior_only:
            body = (*edges, superior(upper), above)
            diameter = mean_of((length_of(superior(upper)), length_of(above)))
            yield of_disc("disc_height_index_body", "ratio", body, ratio(height, diameter), unsigned=True)


def _bodies(spine: Spine, front: str) -> Iterator[Measurement]:
    whole = [i for i in range(spine.schema.num_levels) if spine.schema.exists[i].all()]
    walls = {i: (wall(i, front), wall(i, _other(front))) for i in whole}
    heights = {i: tuple(map(length_of, walls[i])) for i in whole}
    visible = [i for i in whole if lines_fault(spine, walls[i]) is None]
    for i in whole:
        of_body = partial(measured, spine, spine.schema.levels[i])
        anterior, posterior = heights[i]
        yield of_body("anterior_height", "mm", walls[i][:1], anterior, unsigned=True)
        yield of_body("posterior_height", "mm", walls[i][1:], posterior, unsigned=True)
        yield of_body("wedge_ratio", "ratio", walls[i], ratio(anterior, posterior), unsigned=True)
        neighbours = [j for j in (i - 1, i + 1) if j in visible]
        lines = [line for j in (i, *neighbours) for line in walls[j]]
        for name, figure in {
            "wedge_loss": {j: ratio(*heights[j]) for j in whole},
            "crush_loss": {j: heights[j][1] for j in whole},
        }.items():
            healthy = mean_of([figure[j] for j in neighbours] or [figure[i]])
            loss = of_body(name, "%", lines, loss_percent(figure[i], healthy), genant)
            yield loss if neighbours else _without(loss, "no neighbour is visible to compare with")


def _other(side: str) -> str:
    return "right" if side == "left" else "left"
