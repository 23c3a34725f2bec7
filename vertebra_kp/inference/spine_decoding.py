"""From the maps of a spine network to vertebrae in order: peaks, a path along the spine, corners."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from vertebra_kp.config.spine import USUAL_STEP
from vertebra_kp.core.anatomy import LEVELS
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.inference.spine_maps import SpineMaps

PEAK_FROM = 0.15  # of a centre's probability
MOST_PEAKS = 80
PEAK_COST = 0.1  # of every vertebra of a path: a weak peak off the path's end is none
# Of a step: how far a neighbour may lie from where the vertebra expects it. The cost grows with the square, up to
# this value, so that a sharp bend does not end a path that goes on behind it.
OFF_STEP = 0.7
GAP_COST = 0.6  # of a vertebra left out between two
CORNER_WINDOW = 0.22  # of a step: how far a corner's peak may lie from where the vertebra expects it
CORNER_FROM = 0.2  # of a corner's probability: below it, the vertebra's expectation counts


@dataclass(frozen=True)
class FoundSpine:
    """``n`` vertebrae from head to foot, in px of one frame.

    ``centres`` ``[n, 2]``; ``corners`` ``[n, 4, 2]``; ``steps`` ``[n]``; ``scores`` ``[n]`` and ``corner_scores``
    ``[n, 4]`` in 0..1, 0 for one that was filled in between two; ``levels`` ``[n, L]`` log-probabilities of
    ``LEVELS``. ``value`` of the path: its scores less the cost of what vertebrae lie off from where neighbours
    expect them.
    """

    centres: np.ndarray
    corners: np.ndarray
    steps: np.ndarray
    scores: np.ndarray
    corner_scores: np.ndarray
    levels: np.ndarray
    value: float

    def __len__(self) -> int:
        return len(self.centres)

    def moved(self, matrix: np.ndarray) -> "FoundSpine":
        """In another frame, by a matrix that keeps angles."""
        factor = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
        return FoundSpine(
            apply_affine(matrix, self.centres),
            apply_affine(matrix, self.corners),
            self.steps * factor,
            self.scores,
            self.corner_scores,
            self.levels,
            self.value,
        )


@dataclass(frozen=True)
class _Peaks:
    centres: np.ndarray
    steps: np.ndarray
    down: np.ndarray
    scores: np.ndarray
    cells: np.ndarray


def decode(maps: SpineMaps) -> FoundSpine:
    """The best path of vertebrae through the centres' peaks, with a vertebra filled in where one is left out."""
    peaks = _peaks(maps)
    path, value = _best_path(peaks)
    of_path = [_vertebra(maps, peaks, i) for i in path]
    rows: list[tuple[np.ndarray, ...]] = []
    for k, here in enumerate(of_path):
        if k and _gap(peaks, path[k - 1], path[k]):
            rows.append(_between(of_path[k - 1], here))
        rows.append(here)
    if not rows:
        empty = np.empty
        return FoundSpine(
            empty((0, 2)), empty((0, 4, 2)), empty(0), empty(0), empty((0, 4)), empty((0, len(LEVELS))), 0.0
        )
    centres, corners, steps, scores, corner_scores, levels = (
        np.stack(column) for column in zip(*rows, strict=True)
    )
    return FoundSpine(centres, corners, steps, scores, corner_scores, levels, value)


def place_corners(maps: SpineMaps, spine: FoundSpine) -> FoundSpine:
    """The spine with each corner at its peak in maps of the same frame, where there is one near it."""
    corners, scores = spine.corners.copy(), spine.corner_scores.copy()
    for i, step in enumerate(spine.steps):
        for k in range(4):
            expected, reach = spine.corners[i, k] / maps.stride, CORNER_WINDOW * step / maps.stride
            place, value = _corner(maps.points[1 + k], expected, reach)
            if value >= CORNER_FROM:
                corners[i, k], scores[i, k] = place * maps.stride, value
    return replace(spine, corners=corners, corner_scores=scores)


def _peaks(maps: SpineMaps) -> _Peaks:
    heat = maps.points[0]
    is_peak = (heat == cv2.dilate(heat, np.ones((3, 3), np.uint8))) & (heat >= PEAK_FROM)
    row, column = np.nonzero(is_peak)
    order = np.argsort(-heat[row, column], kind="stable")[:MOST_PEAKS]
    # From head to foot, whichever way that is on the image.
    direction = (heat[row[order], column[order]] * maps.down[:, row[order], column[order]]).sum(axis=1)
    along = np.stack([column[order], row[order]], axis=1) @ direction
    order = order[np.argsort(along, kind="stable")]
    row, column = row[order], column[order]
    centres = np.array([_mean_near(heat, int(c), int(r)) for r, c in zip(row, column, strict=True)]).reshape(-1, 2)
    down = maps.down[:, row, column].T
    down = down / np.maximum(np.linalg.norm(down, axis=1, keepdims=True), 1e-6)
    steps = USUAL_STEP * np.exp(np.clip(maps.log_step[0, row, column], -3, 3))
    return _Peaks(centres * maps.stride, steps, down, heat[row, column], np.stack([row, column], axis=1))


def _mean_near(heat: np.ndarray, column: int, row: int, reach: int = 1) -> np.ndarray:
    """Weighted mean of the cells about one, in cells, continuous."""
    h, w = heat.shape
    top, bottom, left, right = (
        max(0, row - reach),
        min(h, row + reach + 1),
        max(0, column - reach),
        min(w, column + reach + 1),
    )
    part = heat[top:bottom, left:right]
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    return np.array([(part * x).sum(), (part * y).sum()]) / part.sum()


def _deviation(peaks: _Peaks, i: int, j: int, count: int) -> float:
    """In steps: how far two peaks lie from where each expects the vertebra ``count`` further on."""
    ahead = peaks.centres[i] + count * peaks.steps[i] * peaks.down[i]
    back = peaks.centres[j] - count * peaks.steps[j] * peaks.down[j]
    forth = np.linalg.norm(peaks.centres[j] - ahead) / peaks.steps[i]
    return float(forth + np.linalg.norm(peaks.centres[i] - back) / peaks.steps[j]) / 2


def _gap(peaks: _Peaks, i: int, j: int) -> bool:
    return _deviation(peaks, i, j, 2) < _deviation(peaks, i, j, 1)


def _best_path(peaks: _Peaks) -> tuple[list[int], float]:
    """Peaks from head to foot with the highest sum of scores, each where neighbours expect it; and that sum."""
    n = len(peaks.scores)
    total, came_from = peaks.scores - PEAK_COST, np.full(n, -1)
    for j in range(n):
        for i in range(j):
            distance = np.linalg.norm(peaks.centres[j] - peaks.centres[i])
            if distance > 2.8 * max(peaks.steps[i], peaks.steps[j]):
                continue
            one, two = _deviation(peaks, i, j, 1), _deviation(peaks, i, j, 2)
            cost = np.inf
            if one < OFF_STEP:
                cost = one**2 / OFF_STEP
            elif two < OFF_STEP:
                cost = two**2 / OFF_STEP + GAP_COST
            reached = total[i] + peaks.scores[j] - PEAK_COST - cost
            if reached > total[j]:
                total[j], came_from[j] = reached, i
    path = [int(total.argmax())] if n else []
    while path and came_from[path[-1]] >= 0:
        path.append(int(came_from[path[-1]]))
    return path[::-1], float(total.max(initial=0))


def _vertebra(maps: SpineMaps, peaks: _Peaks, i: int) -> tuple[np.ndarray, ...]:
    """Row of ``FoundSpine`` for a peak."""
    row, column = peaks.cells[i]
    step, centre = peaks.steps[i], peaks.centres[i]
    cell = (np.array([column, row]) + 0.5) * maps.stride
    expected = cell + maps.offsets[:, row, column].reshape(4, 2) * step
    corners, scores = np.empty((4, 2)), np.empty(4)
    for k in range(4):
        corners[k], scores[k] = _corner(
            maps.points[1 + k], expected[k] / maps.stride, CORNER_WINDOW * step / maps.stride
        )
    return centre, corners * maps.stride, step, peaks.scores[i], scores, _level_evidence(maps, centre, step)


def _corner(heat: np.ndarray, expected: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
    """The highest peak near the expected place, in cells, and its value; the place itself where there is none."""
    h, w = heat.shape
    reach = max(reach, 1.0)
    top, left = max(0, int(expected[1] - reach)), max(0, int(expected[0] - reach))
    bottom, right = (
        max(0, min(side, int(np.floor(to + reach)) + 1)) for side, to in ((h, expected[1]), (w, expected[0]))
    )
    part = heat[top:bottom, left:right]
    if part.size == 0:
        return expected, 0.0
    row, column = np.unravel_index(part.argmax(), part.shape)
    value = float(part[row, column])
    if value < CORNER_FROM:
        return expected, value
    return _mean_near(heat, left + int(column), top + int(row)), value


def _level_evidence(maps: SpineMaps, centre: np.ndarray, step: float) -> np.ndarray:
    """Log-probabilities ``[L]`` of the levels, by the mean logits of the cells about the centre."""
    h, w = maps.levels.shape[1:]
    reach = max(1.0, 0.25 * step / maps.stride)
    x, y = centre / maps.stride
    rows = slice(max(0, int(y - reach)), min(h, int(y + reach) + 1))
    columns = slice(max(0, int(x - reach)), min(w, int(x + reach) + 1))
    logits = maps.levels[:, rows, columns].reshape(len(maps.levels), -1).mean(axis=1)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _between(above: tuple[np.ndarray, ...], below: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """A vertebra half-way between two, of which nothing but its place is known."""
    centre, corners, step, score, corner_scores, levels = ((a + b) / 2 for a, b in zip(above, below, strict=True))
    return centre, corners, step, score * 0, corner_scores * 0, np.full_like(levels, -np.log(len(levels)))
