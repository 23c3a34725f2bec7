"""What is measured, what it needs, and why it could not be: never a number made up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema, Side
from vertebra_kp.measures.formulas import Formula, scaled
from vertebra_kp.measures.lines import Line

Unit = Literal["deg", "mm", "%", "ratio"]
# Sine of the flattest angle that a body's corner may have, and its least height over its width.
FLATTEST_SINE = 0.02
LEAST_HEIGHT = 0.05
# Where the lower of two neighbours may begin below the upper one, in widths of its endplate: discs have 0.1 to
# 0.4, a vertebra that has slipped off its neighbour sinks beside it.
DEEPEST, WIDEST = -0.5, 1.0
LONGEST_MM_PER_PIXEL = 10.0  # no film's pixel is a centimetre: such a number is a mistaken unit


@dataclass(frozen=True)
class Spine:
    """The corners of one film, and what else a measure may ask for.

    ``points_xy_image`` ``[levels, 4, 2]`` in pixels of the original film, nan for what is not visible; ``size``
    (height, width), which the AASCE protocol asks for; ``spacing_mm`` of a pixel, None when unknown;
    ``anterior_side`` of a lateral film.
    Raises ValueError for points of another shape.
    """

    schema: Schema
    points_xy_image: np.ndarray
    size: tuple[int, int] | None = None
    spacing_mm: float | None = None
    anterior_side: Side | None = None

    def __post_init__(self) -> None:
        wanted = (self.schema.num_levels, len(CORNERS), 2)
        if self.points_xy_image.shape != wanted:
            raise ValueError(
                f"points_xy_image must be {list(wanted)} for schema {self.schema.name}, "
                f"got {list(self.points_xy_image.shape)}"
            )

    @property
    def spacing_fault(self) -> str | None:
        """Why nothing can be measured in mm; None where it can."""
        if self.spacing_mm is None:
            return "the size of a pixel is not known"
        if not (np.isfinite(self.spacing_mm) and 0 < self.spacing_mm <= LONGEST_MM_PER_PIXEL):
            return f"{self.spacing_mm:g} mm is no size of a pixel"
        return None


@dataclass(frozen=True)
class Measurement:
    """One value, or the reason why there is none.

    ``name`` of the measure and ``at`` which vertebrae ("L4/L5"); ``value`` in ``unit`` or None with ``reason``;
    ``grade`` where the measure has grades. ``lines`` are the lines of the spine that it was measured between, and
    ``formula`` measures the same ones on other corners of the same film. ``unsigned`` values are never below 0.
    ``ends_found``: the vertebrae were searched for, another reading of the film may find others.
    """

    name: str
    at: str
    unit: Unit
    value: float | None
    reason: str | None = None
    grade: str | None = None
    lines: tuple[Line, ...] = ()
    formula: Formula | None = field(default=None, repr=False, compare=False)
    unsigned: bool = False
    ends_found: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What two readings of one film have in common."""
        return self.name, "" if self.ends_found else self.at


def measured(
    spine: Spine,
    at: str,
    name: str,
    unit: Unit,
    lines: Sequence[Line],
    formula: Formula,
    grade: Callable[[float], str] | None = None,
    *,
    unsigned: bool = False,
    ends_found: bool = False,
    across: tuple[int, int] | None = None,
    reason: str | None = None,
) -> Measurement:
    """The measurement by ``formula``, or the first thing that it lacks of ``lines`` and, in mm, of the spacing.

    ``formula`` gives pixels where the unit is mm; ``across`` are the neighbours (indices) that it lies between;
    a ``reason`` says that there is no value in any case.
    """
    reason = reason or lines_fault(spine, lines)
    if reason is None and across is not None:
        reason = disc_fault(spine, *across)
    if reason is None and unit == "mm":
        reason = spine.spacing_fault
    found = Measurement(name, at, unit, None, reason, None, tuple(lines), None, unsigned, ends_found)
    if reason is not None:
        return found
    if unit == "mm" and spine.spacing_mm:
        formula = scaled(formula, spine.spacing_mm)
    value = float(formula(spine.points_xy_image.astype(np.float64)))
    return replace(found, value=value, grade=grade(value) if grade else None, formula=formula)


def lines_fault(spine: Spine, lines: Sequence[Line]) -> str | None:
    """Why one of the lines cannot be measured on; None where all can."""
    points, levels = spine.points_xy_image, spine.schema.levels
    for line in lines:
        for level, corner in line.corners:
            if not np.isfinite(points[level, corner]).all():
                return f"{levels[level]}.{CORNERS[corner]} is not visible"
        if not np.any(line.of(points)):
            (level, start), (end_level, end) = line.corners
            return f"{levels[level]}.{CORNERS[start]} and {levels[end_level]}.{CORNERS[end]} are one point"
    for level in {level for line in lines for level, _ in line.corners}:
        if fault := body_fault(points[level]):
            return f"{levels[level]} {fault}"
    return None


def body_fault(corners: np.ndarray) -> str | None:
    """What is wrong with the corners ``[4, 2]`` of a body, as far as they are visible; None for a plausible one.

    A body is a convex quadrilateral, TL, TR, BR, BL clockwise on the screen; an endplate runs to the right.
    """
    for left, right in ((0, 1), (2, 3)):
        if corners[right, 0] < corners[left, 0]:  # nan is not
            return "has left and right corners swapped: is the film mirrored or upside down?"
    around = corners[[0, 1, 3, 2]].astype(np.float64)
    if not np.isfinite(around).all():
        return None
    edge = np.roll(around, -1, axis=0) - around
    following = np.roll(edge, -1, axis=0)
    lengths = np.hypot(*edge.T)
    turns = edge[:, 0] * following[:, 1] - edge[:, 1] * following[:, 0]
    flat = np.abs(turns) <= FLATTEST_SINE * lengths * np.roll(lengths, -1)
    if flat.any() or lengths[[1, 3]].min() < LEAST_HEIGHT * lengths[[0, 2]].max():
        return "has corners that coincide or lie on one line"
    return None if (turns > 0).all() else "has corners that are swapped or in no order of a body"


def disc_fault(spine: Spine, upper: int, lower: int) -> str | None:
    """Why two neighbours (indices) cannot be ones as they lie; None where they can, or too little is visible.

    Told by the disc's edges that are visible, along the normal of the lower superior endplate.
    """
    points = spine.points_xy_image.astype(np.float64)
    endplate = points[lower, 1] - points[lower, 0]
    width = np.hypot(*endplate)
    down = np.array([-endplate[1], endplate[0]]) / width if width else np.full(2, np.nan)
    gaps = (points[lower, :2] - points[upper, 2:]) @ down
    gaps = gaps[np.isfinite(gaps)]
    if not gaps.size:
        return None
    names = " and ".join(spine.schema.levels[i] for i in (upper, lower))
    share = gaps.mean() / width
    if share < DEEPEST:
        return f"{names} lie on each other or in the wrong order"
    return f"{names} lie too far apart for neighbours" if share > WIDEST else None
