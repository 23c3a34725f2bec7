"""Measures of a lateral film: lordosis, endplates, slips, discs, heights and fractures.

What corners cannot give: pelvic incidence and tilt (hips), sagittal vertical axis (C7 and sacrum on one film),
biconcave fractures (the middle of an endplate).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from vertebra_kp.measures.formulas import (
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


def measure_lateral(spine: Spine) -> list[Measurement]:
    """All measures of a lateral film, from head to foot.

    Nothing that has a front is measured where the front is not known, or the sacrum says that it is elsewhere.
    """
    front = spine.anterior_side or "left"
    found = [*_curvature(spine, front), *_discs(spine, front), *_bodies(spine, front)]
    reason = None if spine.anterior_side else NEEDS_SIDE
    slope = next((m.value for m in found if m.name == "sacral_slope"), None)
    if slope is not None and slope < BACKWARDS_FROM_DEG:
        reason = reason or BACKWARDS
    return [m if reason is None or m.name in SIDELESS else _without(m, reason) for m in found]


def _without(measurement: Measurement, reason: str) -> Measurement:
    """Its own reason comes first."""
    return replace(measurement, value=None, grade=None, formula=None, reason=measurement.reason or reason)


def _curvature(spine: Spine, front: str) -> Iterator[Measurement]:
    level = {name: i for i, name in enumerate(spine.schema.levels)}
    if {"L1", "S1"} <= level.keys():
        ends = superior(level["L1"]), superior(level["S1"])
        yield measured(spine, "lumbar_lordosis", "L1-S1", "deg", ends, opening(*ends, front))
    if {"C2", "C7"} <= level.keys():
        ends = inferior(level["C2"]), inferior(level["C7"])
        yield measured(spine, "cervical_lordosis", "C2-C7", "deg", ends, opening(*ends, front))
    if "S1" in level:
        endplate = superior(level["S1"])
        yield measured(spine, "sacral_slope", "S1", "deg", (endplate,), forward_slope(endplate, front))


def _discs(spine: Spine, front: str) -> Iterator[Measurement]:
    levels, schema = spine.schema.levels, spine.schema
    for upper, lower in pairwise(range(len(levels))):
        at = f"{levels[upper]}/{levels[lower]}"
        above, below = plates = inferior(upper), superior(lower)
        depths = length_of(above), length_of(below)
        anterior, posterior = edges = disc_edge(upper, lower, front), disc_edge(upper, lower, _other(front))
        heights = length_of(anterior), length_of(posterior)
        yield measured(spine, "disc_angle", at, "deg", plates, opening(above, below, front), across=(upper, lower))
        if levels[upper] not in schema.inferior_only:
            last = below if levels[lower] in schema.superior_only else inferior(lower)
            ends = superior(upper), last
            yield measured(spine, "segmental_angle", at, "deg", ends, opening(*ends, front), across=(upper, lower))
        step = forward_step(above, below, front)
        three = below, posterior  # corners: S1 has no more, and the fourth is not needed
        yield measured(spine, "slip_mm", at, "mm", three, step, across=(upper, lower))
        yield measured(
            spine,
            "slip_percent",
            at,
            "%",
            three,
            percent(step, length_of(below)),
            meyerding,
            across=(upper, lower),
        )
        yield measured(
            spine, "anterior_disc_height", at, "mm", (anterior,), heights[0], unsigned=True, across=(upper, lower)
        )
        yield measured(
            spine,
            "posterior_disc_height",
            at,
            "mm",
            (posterior,),
            heights[1],
            unsigned=True,
            across=(upper, lower),
        )
        index = ratio(mean_of(heights), mean_of(depths))
        yield measured(
            spine,
            "disc_height_index_depth",
            at,
            "ratio",
            (*edges, *plates),
            index,
            unsigned=True,
            across=(upper, lower),
        )
        if levels[upper] not in schema.inferior_only:
            diameter = mean_of((length_of(superior(upper)), length_of(above)))
            body = (*edges, superior(upper), above)
            index = ratio(mean_of(heights), diameter)
            yield measured(
                spine, "disc_height_index_body", at, "ratio", body, index, unsigned=True, across=(upper, lower)
            )


def _bodies(spine: Spine, front: str) -> Iterator[Measurement]:
    whole = [i for i in range(spine.schema.num_levels) if spine.schema.exists[i].all()]
    walls = {i: (wall(i, front), wall(i, _other(front))) for i in whole}
    heights = {i: tuple(map(length_of, walls[i])) for i in whole}
    seen = [i for i in whole if lines_fault(spine, walls[i]) is None]
    for i in whole:
        at = spine.schema.levels[i]
        anterior, posterior = heights[i]
        yield measured(spine, "anterior_height", at, "mm", walls[i][:1], anterior, unsigned=True)
        yield measured(spine, "posterior_height", at, "mm", walls[i][1:], posterior, unsigned=True)
        yield measured(spine, "wedge_ratio", at, "ratio", walls[i], ratio(anterior, posterior), unsigned=True)
        neighbours = [j for j in (i - 1, i + 1) if j in seen]
        lines = [line for j in (i, *neighbours) for line in walls[j]]
        for name, figure in {
            "wedge_loss": {j: ratio(*heights[j]) for j in whole},
            "crush_loss": {j: heights[j][1] for j in whole},
        }.items():
            healthy = mean_of([figure[j] for j in neighbours] or [figure[i]])
            loss = measured(spine, name, at, "%", lines, loss_percent(figure[i], healthy), genant)
            yield loss if neighbours else _without(loss, "no neighbour is seen to compare with")


def _other(side: str) -> str:
    return "right" if side == "left" else "left"
