"""Vertebrae that a network did not find, as an evaluation counts them: where the spine would go on."""

import numpy as np

from vertebra_kp.core.anatomy import Schema


def filled(points_xy: np.ndarray, schema: Schema, size: tuple[int, int]) -> np.ndarray:
    """Corners ``[levels, 4, 2]`` without nan where the schema has one, so that what is missing costs an error.

    A missing corner goes on from those of the two nearest levels that have it, as far apart as these are; of a
    type of corner that was not found twice, all lie in the middle of the image of ``size`` (height, width).
    """
    points = points_xy.copy()
    for corner in range(points.shape[1]):
        exists = schema.exists[:, corner]
        found = np.flatnonzero(np.isfinite(points_xy[:, corner]).all(axis=1) & exists)
        for level in np.flatnonzero(exists & ~np.isfinite(points_xy[:, corner]).all(axis=1)):
            if len(found) < 2:
                points[level, corner] = size[1] / 2, size[0] / 2
                continue
            a, b = found[np.argsort(np.abs(found - level), kind="stable")[:2]]
            towards = (points_xy[b, corner] - points_xy[a, corner]) / (b - a)
            points[level, corner] = points_xy[a, corner] + (level - a) * towards
    return points
