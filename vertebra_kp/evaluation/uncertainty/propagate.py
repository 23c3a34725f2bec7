"""From the covariances of corners to the standard error of a measure, to first order."""

import numpy as np

from vertebra_kp.measures.measurement import Measurement

STEP_PX = 1e-3  # of the central differences: smooth formulas are straight over it


def standard_error(measurement: Measurement, points_xy: np.ndarray, covariances: np.ndarray) -> float:
    """SD of a measured value in its unit, corners taken as independent.

    ``points_xy`` ``[levels, 4, 2]`` px and ``covariances`` ``[levels, 4, 2, 2]`` px² of the film that it was
    measured on. Raises ValueError for a measurement without a value. Maxima, such as a Cobb angle over all pairs
    of vertebrae, are biased upwards by noise, which no first order sees: intervals rest on the measure's own
    errors and take only their scale from here.
    """
    if measurement.formula is None:
        raise ValueError(f"{measurement.name} {measurement.at} has no value: {measurement.reason}")
    corners = sorted({corner for line in measurement.lines for corner in line.corners})
    moved = np.repeat(points_xy[None].astype(np.float64), 4 * len(corners), axis=0)
    for k, (level, corner) in enumerate(corners):
        for axis in (0, 1):
            moved[4 * k + 2 * axis, level, corner, axis] += STEP_PX
            moved[4 * k + 2 * axis + 1, level, corner, axis] -= STEP_PX
    values = measurement.formula(moved).reshape(len(corners), 2, 2)
    gradient = (values[..., 0] - values[..., 1]) / (2 * STEP_PX)  # [corners, axis]
    rows = tuple(np.array(corners).T)
    return float(np.sqrt(np.einsum("ka,kab,kb->", gradient, covariances[rows].astype(np.float64), gradient)))
