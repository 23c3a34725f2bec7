"""Formulas of measures: each takes lines of the spine and gives a function of the corners.

The function takes corners ``[..., levels, 4, 2]`` in pixels and gives ``[...]``: degrees, pixels, percent or
ratios. ``front`` is the image side of a lateral film that the patient faces.
"""

from collections.abc import Callable, Sequence

import numpy as np

from vertebra_kp.measures.lines import HORIZONTAL, Line, angle_deg, length, mid_line

Formula = Callable[[np.ndarray], np.ndarray]


def absolute_angle(first: Line, second: Line) -> Formula:
    """Angle between two lines, without sign."""
    return lambda points: np.abs(angle_deg(first.of(points), second.of(points)))


def angle_of_mid_lines(upper: int, lower: int) -> Formula:
    """Angle between the mid-lines of two bodies (indices), without sign."""

    def angle(points: np.ndarray) -> np.ndarray:
        directions = mid_line(points[..., [upper, lower], :, :])
        return np.abs(angle_deg(directions[..., 0, :], directions[..., 1, :]))

    return angle


def opening(upper: Line, lower: Line, side: str) -> Formula:
    """Angle between two endplates, positive where they open to ``side``: to the front lordosis, else kyphosis."""
    return lambda points: _lifts(side) * angle_deg(lower.of(points), upper.of(points))


def forward_slope(endplate: Line, front: str) -> Formula:
    """Angle of an endplate against the horizontal, positive where its front is the lower side."""
    return lambda points: _lifts(front) * angle_deg(endplate.of(points), HORIZONTAL)


def forward_step(above: Line, below: Line, front: str) -> Formula:
    """Step of the upper body on the lower along the lower's endplate; forwards (antero-) is positive.

    Between the feet, on the line of the lower superior endplate ``below``, of the upper body's postero-inferior
    and the lower body's postero-superior corner. Source: Taillard, Acta Orthop Scand 24, 1954.
    """
    posterior = _posterior(front)

    def step(points: np.ndarray) -> np.ndarray:
        offset = points[..., *above.corners[posterior], :] - points[..., *below.corners[posterior], :]
        return -_lifts(front) * _along(offset, below.of(points))

    return step


def forward_offset(body: Sequence[Line], below: Line, front: str) -> Formula:
    """Horizontal distance of a body's centre from the posterior end of ``below``; forwards is positive.

    The centre is the mean of the corners of both endplates of ``body``.
    """

    def offset(points: np.ndarray) -> np.ndarray:
        centre = np.mean([endplate.middle(points) for endplate in body], axis=0)
        foot = points[..., *below.corners[_posterior(front)], :]
        return -_lifts(front) * (centre - foot)[..., 0]

    return offset


def side_step(above: Line, below: Line) -> Formula:
    """Step of the middle of the upper body's endplate on the middle of the lower's; to image left is positive."""
    return lambda points: -_along(above.middle(points) - below.middle(points), below.of(points))


def length_of(line: Line) -> Formula:
    return lambda points: length(line.of(points))


def mean_of(formulas: Sequence[Formula]) -> Formula:
    return lambda points: np.mean([formula(points) for formula in formulas], axis=0)


def scaled(formula: Formula, factor: float) -> Formula:
    return lambda points: formula(points) * factor


def ratio(numerator: Formula, denominator: Formula) -> Formula:
    return lambda points: numerator(points) / denominator(points)


def percent(part: Formula, whole: Formula) -> Formula:
    return lambda points: 100 * part(points) / whole(points)


def loss_percent(figure: Formula, healthy: Formula) -> Formula:
    """How much of the healthy figure is gone."""
    return lambda points: 100 * (1 - figure(points) / healthy(points))


def _along(offset: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return (offset * direction).sum(axis=-1) / length(direction)


def _posterior(front: str) -> int:
    """Which end of an endplate is the posterior one."""
    return 1 if front == "left" else 0


def _lifts(front: str) -> float:
    """Sign that makes a turn positive that lifts the front: clockwise on the screen where that is at the left."""
    return 1.0 if front == "left" else -1.0
