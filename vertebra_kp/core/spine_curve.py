"""The line of a spine: from head to foot through the middles of its vertebrae, with the length of a step."""

from dataclasses import dataclass

import numpy as np

LEAST_LEVELS = 5  # fewer say too little of a spine's course
SAMPLES = 16  # of the line in each vertebra step; everything is interpolated between them
BEYOND = 3  # vertebra steps that the line goes on, straight, past the schema's ends
SMOOTH = 0.8  # of a step: standard deviation of the kernel that smooths the line
STEP_RANGE = (0.4, 2.5)  # of the middle step: what the steps at the ends may be


@dataclass(frozen=True)
class SpineLine:
    """The line from head to foot, sampled at ``u`` [n], evenly: 0 is the middle of the schema's first level.

    ``xy`` [n, 2] and ``step`` [n], the length of a level there, in px of the film; ``across`` [n, 2] unit vectors,
    to the right where the line goes down.
    """

    u: np.ndarray
    xy: np.ndarray
    across: np.ndarray
    step: np.ndarray

    def at(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [..., 2], directions across [..., 2] and steps [...] at ``u``."""
        columns = np.column_stack([self.xy, self.across, self.step]).T
        x, y, right, down, step = (np.interp(u, self.u, column) for column in columns)
        length = np.hypot(right, down)
        return np.stack([x, y], axis=-1), np.stack([right / length, down / length], axis=-1), step


def line_through(points_xy: np.ndarray) -> SpineLine | None:
    """The line through vertebrae ``[levels, 4, 2]``, nan where unknown; None where they do not tell it.

    A vertebra that is called by its neighbour's name still stands on the line, and the length of a level is that
    of most of them: a few wrong names, or vertebrae that are left out, do no harm. Spines run down the film.
    """
    levels = np.flatnonzero(np.isfinite(points_xy).all(axis=(1, 2)))
    if len(levels) < LEAST_LEVELS:
        return None
    ends = points_xy[levels].reshape(-1, 2, 2).mean(axis=1)  # middles of upper and lower endplates
    height = np.ptp(ends[:, 1]) / (np.ptp(levels) + 1)
    if height == 0:
        return None
    beyond = 3 * BEYOND * height
    y = np.arange(ends[:, 1].min() - beyond, ends[:, 1].max() + beyond, height / SAMPLES)
    x, slope = _smooth(ends, y, SMOOTH * height)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    centres = points_xy[levels].mean(axis=1)
    u = np.arange(-BEYOND, len(points_xy) - 1 + BEYOND, 1 / SAMPLES)
    place, step = _steps(levels, np.interp(centres[:, 1], y, length), u)
    x, y, slope = (np.interp(place, length, column) for column in (x, y, slope))
    across = np.stack([np.ones_like(slope), -slope], axis=1) / np.hypot(1, slope)[:, None]
    return SpineLine(u, np.stack([x, y], axis=1), across, step)


def _smooth(points: np.ndarray, y: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """x and dx/dy at heights ``y`` of points [n, 2]: local linear regression, straight past the ends."""
    inside = np.clip(y, points[:, 1].min(), points[:, 1].max())
    dy = points[:, 1] - inside[:, None]
    weight = np.exp(-0.5 * (dy / width) ** 2) + 1e-6  # where no point is near, all count a little
    total = weight.sum(axis=1)
    mean_dy, mean_x = (weight * dy).sum(axis=1) / total, (weight * points[:, 0]).sum(axis=1) / total
    spread = (weight * (dy - mean_dy[:, None]) ** 2).sum(axis=1)
    slope = (weight * (dy - mean_dy[:, None]) * points[:, 0]).sum(axis=1) / spread
    return mean_x - slope * mean_dy + slope * (y - inside), slope


def _theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept as of ``scipy.stats.theilslopes``, whose module takes half a second to import."""
    first, second = np.triu_indices(len(x), k=1)
    slope = np.median((y[second] - y[first]) / (x[second] - x[first]))
    return float(slope), float(np.median(y) - slope * np.median(x))


def _steps(levels: np.ndarray, lengths: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length along the line at ``u``, and its derivative: steps that change evenly from head to foot.

    The straight line through most of the distances of neighbours (Theil and Sen): a vertebra found twice, or left
    out, makes one of them wrong.
    """
    steps = np.diff(lengths) / np.diff(levels)
    slope, start = _theil_sen((levels[1:] + levels[:-1]) / 2, steps)
    middle = max(start + slope * (levels[0] + levels[-1]) / 2, STEP_RANGE[0] * np.ptp(lengths) / np.ptp(levels))
    step = np.clip(start + slope * u, STEP_RANGE[0] * middle, STEP_RANGE[1] * middle)
    place = np.concatenate([[0], np.cumsum((step[1:] + step[:-1]) / 2 * np.diff(u))])
    return place + np.median(lengths - np.interp(levels, u, place)), step
