"""All levels of a spine placed together: one vertebra cannot be two levels, and none is left out between them.

Every corner has a heatmap of its own, and its highest peak may lie at a neighbour: two levels on one vertebra, a
vertebra without a name, a left edge from one and a right edge from the next. Here the levels are put along the
line of the spine so that their maps agree best with a spacing of one step (Viterbi's algorithm: Forney, Proc. IEEE
1973), and a corner is read off what the maps of all levels show near its place.
"""

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.core.spine_curve import SAMPLES, SpineLine, line_through

BLUR = 0.12  # of a step: standard deviation over which a map's mass along the line is gathered
FLOOR = 0.1  # share of a map's mass that its corner may have anywhere: a wrong peak is not proof
ANY_LEVEL = 2.0  # weight of the evidence that there is a vertebra, whichever, beside that for the level
SPACING = 0.12  # of a step: standard deviation of the distance of neighbouring levels
# Flat in the middle, so that a corner is not drawn to where it is expected.
WINDOW = 0.4  # of a step, along the line: how far from its place a corner may lie
EDGE = 8  # power by which the window falls off
HEIGHT_RANGE = (0.5, 0.95)  # of a vertebra, in steps


def chained(heatmaps: Tensor, points_xy: Tensor, schema: Schema, stride: int) -> Tensor:
    """Maps ``[B, K, h, w]`` of what lies where the level's corner belongs, by any level's map; not normalised.

    ``points_xy`` ``[B, K, 2]`` in px of the input, ``stride`` px a cell: the corners that each map alone shows.
    Maps of a film whose corners tell no line stay as they are, and so does one with nothing at its place.
    """
    maps = heatmaps.float().cpu().numpy()
    points = points_xy.cpu().numpy() / stride
    kept = np.stack([_chained(*film, schema) for film in zip(maps, points, strict=True)])
    return torch.from_numpy(kept).to(heatmaps.device)


def _chained(maps: np.ndarray, points: np.ndarray, schema: Schema) -> np.ndarray:
    corners = schema.scatter(points)
    line = line_through(corners)
    if line is None:
        return maps
    level, corner = np.nonzero(schema.exists)  # of each map
    is_upper = corner < 2
    half = _height(corners, line) / 2
    where = _place_of_cells(line, maps.shape[1:])
    along = _along(maps, where, line)
    # Evidence for the middle of a level at every sample: its corners lie half a height above and below.
    above, below = (_shifted(along, sign * half) for sign in (-1, 1))
    at_corner = np.where(is_upper[:, None], above, below)
    evidence = _sums(np.log(FLOOR + at_corner), level)
    # There must be a vertebra at all, whichever; else two that are mixed up would move all between them a little.
    of_any = np.minimum(_sums(at_corner, corner), 1)
    evidence = evidence + ANY_LEVEL * np.log(FLOOR + of_any).sum(axis=0)
    middle = line.u[_best_path(evidence, line.u)]
    place = middle[level] + np.where(is_upper, -half, half)
    of_all = _sums(maps, corner)
    window = np.exp(-0.5 * ((where - place[:, None, None]) / WINDOW) ** EDGE)
    kept = (of_all[corner] * window).astype(np.float32)
    empty = kept.sum(axis=(1, 2)) <= np.finfo(np.float32).tiny
    return np.where(empty[:, None, None], maps, kept)


def _sums(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """``[groups, ...]`` of values ``[K, ...]`` that belong to groups ``[K]``."""
    return np.stack([values[group == one].sum(axis=0) for one in range(group.max() + 1)])


def _height(corners: np.ndarray, line: SpineLine) -> float:
    """Of the vertebrae ``[levels, 4, 2]``, in steps."""
    sides = np.linalg.norm(corners[:, 2:].mean(axis=1) - corners[:, :2].mean(axis=1), axis=1)
    _, _, step = line.at(np.arange(len(corners)))
    return float(np.clip(np.nanmedian(sides / step), *HEIGHT_RANGE))


def _place_of_cells(line: SpineLine, size: tuple[int, int]) -> np.ndarray:
    """``u`` of every cell's nearest point on the line, ``[h, w]``."""
    row, column = np.mgrid[: size[0], : size[1]]
    cells = points_from_indices(np.stack([column, row], axis=-1))
    _, nearest = cKDTree(line.xy).query(cells)
    down = np.stack([-line.across[:, 1], line.across[:, 0]], axis=1)[nearest]
    return line.u[nearest] + ((cells - line.xy[nearest]) * down).sum(axis=-1) / line.step[nearest]


def _along(maps: np.ndarray, where: np.ndarray, line: SpineLine) -> np.ndarray:
    """Share of each map's mass about every sample of the line, ``[K, n]``: 1 where all of it lies on one."""
    sample = np.round((where.ravel() - line.u[0]) * SAMPLES).astype(int)
    on_line = (sample >= 0) & (sample < len(line.u))
    share = maps.reshape(len(maps), -1) / np.maximum(maps.sum(axis=(1, 2)), np.finfo(np.float32).tiny)[:, None]
    gathered = np.stack([np.bincount(sample[on_line], one[on_line], len(line.u)) for one in share])
    sigma = BLUR * SAMPLES
    size = 2 * round(4 * sigma) + 1, 1
    blurred = cv2.GaussianBlur(gathered, size, sigma, borderType=cv2.BORDER_CONSTANT)
    return blurred * np.sqrt(2 * np.pi) * sigma


def _shifted(along: np.ndarray, steps: float) -> np.ndarray:
    """What lies ``steps`` further on, at every sample; nothing beyond the ends."""
    n = along.shape[1]
    at = np.arange(n) + steps * SAMPLES
    return np.stack([np.interp(at, np.arange(n), one, left=0, right=0) for one in along])


def _best_path(evidence: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Samples [levels], ever further down, with the most evidence ``[levels, n]`` and spacings near one step."""
    step = u[None, :] - u[:, None]  # from row to column
    spacing = np.where(step > 0, -0.5 * ((step - 1) / SPACING) ** 2, -np.inf)
    total, came_from = evidence[0], []
    for here in evidence[1:]:
        reached = total[:, None] + spacing
        came_from.append(reached.argmax(axis=0))
        total = reached.max(axis=0) + here
    path = [int(total.argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])
