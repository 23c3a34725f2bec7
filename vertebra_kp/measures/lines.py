"""Lines of a vertebra between two of its corners, and the angles between them; arrays in, arrays out.

Angles are in degrees and positive clockwise on the screen. Leading dimensions are kept, so that a measure of one
film and of a thousand disturbed copies of it is one call.
"""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import CORNERS

HORIZONTAL = np.array([1.0, 0.0])


@dataclass(frozen=True)
class Line:
    """From corner ``start`` of ``level`` to corner ``end`` of ``end_level`` (the same by default); indices."""

    level: int
    start: int
    end: int
    end_level: int | None = None

    @property
    def corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(level, corner) of both ends."""
        return (self.level, self.start), (self.level if self.end_level is None else self.end_level, self.end)

    def of(self, points: np.ndarray) -> np.ndarray:
        """The vector ``[..., 2]`` of this line in ``points`` ``[..., levels, 4, 2]``."""
        start, end = self.corners
        return points[..., *end, :] - points[..., *start, :]

    def middle(self, points: np.ndarray) -> np.ndarray:
        start, end = self.corners
        return (points[..., *end, :] + points[..., *start, :]) / 2


def superior(level: int) -> Line:
    """The upper endplate, from image left to right."""
    return Line(level, CORNERS.index("TL"), CORNERS.index("TR"))


def inferior(level: int) -> Line:
    return Line(level, CORNERS.index("BL"), CORNERS.index("BR"))


def mid_line(points: np.ndarray) -> np.ndarray:
    """Vectors ``[..., levels, 2]`` from the middle of each body's left side to that of its right side."""
    return (points[..., 1, :] + points[..., 3, :] - points[..., 0, :] - points[..., 2, :]) / 2


def wall(level: int, side: str) -> Line:
    """The wall at the image's ``side`` ("left" or "right"), from top to bottom."""
    letter = side[0].upper()
    return Line(level, CORNERS.index(f"T{letter}"), CORNERS.index(f"B{letter}"))


def disc_edge(upper: int, lower: int, side: str) -> Line:
    """Across the disc at the image's ``side``: from the upper body's corner to the lower one's."""
    letter = side[0].upper()
    return Line(upper, CORNERS.index(f"B{letter}"), CORNERS.index(f"T{letter}"), lower)


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Turn from ``first`` to ``second`` ``[..., 2]``, -180..180; by atan2: exact near 0, where arccos is not."""
    cross = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    return np.degrees(np.arctan2(cross, (first * second).sum(axis=-1)))


def length(vector: np.ndarray) -> np.ndarray:
    return np.hypot(vector[..., 0], vector[..., 1])
