"""What the spine network sees in training: a random part of an image, and the targets of its vertebrae there."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from vertebra_kp.config.spine import ViewsConfig
from vertebra_kp.core.anatomy import FLIPPED_CORNER, LEVELS, UNKNOWN
from vertebra_kp.core.geometry import (
    apply_affine,
    compose,
    flip_horizontal,
    letterbox,
    rotate,
    scale,
    translate,
    warp_image,
)
from vertebra_kp.data.spine_films import SpineFilm, Vertebrae
from vertebra_kp.data.transforms import augmentation_of, change_intensity

CLOSE_JITTER = (-0.3, 0.7)  # log-range of the size of vertebrae in close views: corners are placed on larger ones
SPINE_JITTER = 0.15  # log-range, to both sides, where the whole spine is shown
LEAST_KEPT = 0.35  # of an image's height: what a random cut leaves at least
LEAST_STEP_PX = 7.0  # vertebrae closer than this are too small to be marked
POINT_SIGMA = (0.10, *[0.07] * 4)  # of a centre and of the corners, in steps
LEAST_SIGMA = 0.7  # cells
NEAR_CENTRE = 1.3  # of a step: where corners of a vertebra may lie that nobody marked
OWNED = 0.28  # of a step around its centre: cells that tell of a vertebra
# Neighbours beyond the ends that nobody marked: the neck, ribs' heads above; sacral segments below. In steps.
UNMARKED_ABOVE, UNMARKED_BELOW = 8.0, 2.6
BESIDE = 2.0  # width to each side of that, in steps
# Beyond a marked end the next vertebra is known by name, if not to the pixel: level, neighbour, distance in steps.
NEXT = (("C7", "T1", -0.88), ("S1", "L5", 1.0))


@dataclass(frozen=True)
class SpineTargets:
    """Of a batch; maps at the decoder's stride, ``N`` vertebrae at most.

    ``points`` ``[B, 5, h, w]`` in 0..1 with 1 at each point; ``known`` ``[B, 5, h, w]`` 0 where nobody marked
    what may be there; ``owner`` ``[B, h, w]`` the vertebra whose middle a cell shows, -1 none. By vertebra:
    ``corners`` ``[B, N, 8]`` px of the input, nan unknown; ``steps`` ``[B, N]`` px; ``down`` ``[B, N, 2]``;
    ``levels`` ``[B, N]`` places in ``LEVELS`` or ``UNKNOWN``. ``views`` ``[B]``.
    """

    points: Tensor
    known: Tensor
    owner: Tensor
    corners: Tensor
    steps: Tensor
    down: Tensor
    levels: Tensor
    views: Tensor

    def to(self, device: torch.device) -> "SpineTargets":
        return SpineTargets(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def random_view(film: SpineFilm, config: ViewsConfig, rng: np.random.Generator) -> tuple[np.ndarray, Vertebrae]:
    """An image ``[H, W]`` float32 in 0..1 of ``config.size`` and the vertebrae in its frame."""
    height, width = config.size
    kind = rng.random()
    if kind < config.close:
        placement = _close(film, config, rng)
    elif kind < config.close + config.spine:
        placement = _whole_spine(film, config, rng)
    else:
        placement = _any_part(film, config, rng)
    turned = config.rotate_deg * (rng.uniform(-1, 1) if rng.random() < 0.4 else rng.uniform(-0.3, 0.3))
    placement = compose(placement, rotate(turned, (width / 2, height / 2)))
    mirrored = config.flip and rng.random() < 0.5
    if mirrored:
        placement = compose(placement, flip_horizontal(width))
    fill = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 255))
    image = warp_image(film.image, placement, config.size, fill=fill).astype(np.float32) / 255
    vertebrae = film.vertebrae.moved(placement)
    if mirrored:
        corners = vertebrae.corners[:, FLIPPED_CORNER, :]
        vertebrae = Vertebrae(vertebrae.centres, corners, vertebrae.levels)
    return change_intensity(image, augmentation_of(config), rng), vertebrae


def _close(film: SpineFilm, config: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    """Vertebrae of the constant size or larger, any part of the spine about the middle of the view."""
    height, width = config.size
    wanted = config.step_px * np.exp(rng.uniform(*CLOSE_JITTER))
    factor = wanted / float(np.nanmedian(film.vertebrae.steps))
    x, y = film.vertebrae.centres[rng.integers(len(film.vertebrae.centres))]
    to_x, to_y = width * (0.5 + rng.uniform(-0.2, 0.2)), height * rng.uniform(0.12, 0.88)
    return compose(translate(-x, -y), scale(factor), translate(to_x, to_y))


def _whole_spine(film: SpineFilm, config: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    """All marked vertebrae about the middle of the view, at the constant size, or smaller where they are many."""
    height, width = config.size
    centres, steps = film.vertebrae.centres, film.vertebrae.steps
    across, along = centres[-1] - centres[0]
    upright = rotate(float(np.rad2deg(np.arctan2(across, along))), (0.0, 0.0))
    placed = apply_affine(upright, centres)
    low, high = placed.min(axis=0), placed.max(axis=0)
    wanted = config.step_px * np.exp(rng.uniform(-SPINE_JITTER, SPINE_JITTER)) / float(np.nanmedian(steps))
    extent = high - low + 2 * float(np.nanmedian(steps))
    factor = min(wanted, height / extent[1], width / extent[0])
    x, y = (low + high) / 2
    shift = rng.uniform(-1.5, 1.5, 2) * config.step_px
    return compose(
        upright, translate(-x, -y), scale(factor), translate(width / 2 + shift[0], height / 2 + shift[1])
    )


def _any_part(film: SpineFilm, config: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    """A cut of the image that shows some of the spine, letterboxed and then larger or smaller."""
    height, width = film.image.shape
    x = film.vertebrae.centres[:, 0]
    kept = height * (1.0 if rng.random() < 0.4 else rng.uniform(LEAST_KEPT, 1))
    top = rng.uniform(0, height - kept)
    left, right = (0.0, float(width)) if rng.random() < 0.4 else (rng.uniform(0, max(0, x.min())), 0.0)
    if right == 0.0:
        right = rng.uniform(min(width, x.max()), width)
    size = (max(kept, 1.0), max(right - left, width * LEAST_KEPT))
    placement = compose(translate(-left, -top), letterbox((size[0], size[1]), config.size))
    factor = np.exp(rng.uniform(-0.45, 0.2))
    middle = (config.size[1] / 2, config.size[0] / 2)
    shift = rng.uniform(-0.08, 0.08, 2) * config.size[::-1]
    to_middle, back = translate(-middle[0], -middle[1]), translate(middle[0] + shift[0], middle[1] + shift[1])
    return compose(placement, to_middle, scale(factor), back)


@dataclass(frozen=True)
class _Maps:
    points: np.ndarray
    known: np.ndarray
    owner: np.ndarray


def targets_of(views: Sequence[tuple[Vertebrae, int]], size: tuple[int, int], stride: int) -> SpineTargets:
    """Of images of ``size``, each with its vertebrae in that frame and its view."""
    maps = [_maps(vertebrae, size, stride) for vertebrae, _ in views]
    all_of = [_with_next(vertebrae) for vertebrae, _ in views]
    most = max(1, *(len(vertebrae.centres) for vertebrae in all_of))

    def table(width: tuple[int, ...], fill: float, values: list[np.ndarray]) -> Tensor:
        filled = np.full((len(values), most, *width), fill, dtype=np.float32)
        for row, one in zip(filled, values, strict=True):
            row[: len(one)] = one
        return torch.from_numpy(filled)

    return SpineTargets(
        points=torch.from_numpy(np.stack([one.points for one in maps])),
        known=torch.from_numpy(np.stack([one.known for one in maps])),
        owner=torch.from_numpy(np.stack([one.owner for one in maps])),
        corners=table((8,), np.nan, [one.corners.reshape(-1, 8) for one in all_of]),
        steps=table((), np.nan, [vertebrae.steps for vertebrae, _ in views]),
        down=table((2,), np.nan, [vertebrae.down for vertebrae, _ in views]),
        levels=table((), UNKNOWN, [one.levels for one in all_of]).long(),
        views=torch.tensor([view for _, view in views]),
    )


def _maps(vertebrae: Vertebrae, size: tuple[int, int], stride: int) -> _Maps:
    """Maps at ``stride``; cells are measured in cells from here on."""
    h, w = size[0] // stride, size[1] // stride
    points, known = np.zeros((5, h, w), dtype=np.float32), np.ones((5, h, w), dtype=np.float32)
    owner = np.full((h, w), -1, dtype=np.int64)
    cells = vertebrae.moved(scale(1 / stride))
    steps, down, beyond = cells.steps, cells.down, _with_next(cells)
    row, column = np.mgrid[:h, :w] + 0.5
    nearest = np.full((h, w), np.inf)
    for i, (centre, corners, step) in enumerate(zip(cells.centres, cells.corners, steps, strict=True)):
        if step * stride < LEAST_STEP_PX:  # too small to be found, and no background either
            known[:, np.hypot(column - centre[0], row - centre[1]) < max(NEAR_CENTRE * step, 2)] = 0
            continue
        for channel, point in enumerate((centre, *corners)):
            _add_peak(points[channel], point, max(LEAST_SIGMA, POINT_SIGMA[channel] * step))
        distance = np.hypot(column - centre[0], row - centre[1])
        for corner in np.flatnonzero(np.isnan(corners[:, 0])):
            known[1 + corner, distance < NEAR_CENTRE * step] = 0
        mine = (distance < max(OWNED * step, 0.75)) & (distance < nearest)
        owner[mine], nearest[mine] = i, distance[mine]
    ends = ((0, -1.0, UNMARKED_ABOVE), (len(steps) - 1, 1.0, UNMARKED_BELOW)) if len(steps) else ()
    for i in range(len(cells.centres), len(beyond.centres)):
        x, y = beyond.centres[i]
        owner[(np.hypot(column - x, row - y) < OWNED * float(np.median(steps))) & (owner < 0)] = i
    for end, sign, reach in ends:
        known[:, _beyond(cells.centres[end], sign * down[end], steps[end], reach, row, column)] = 0
    for above in np.flatnonzero(_gaps(vertebrae.levels)):
        pair = cells.centres[above : above + 2]
        middle, radius = pair.mean(axis=0), np.linalg.norm(pair[1] - pair[0]) / 2
        known[:, np.hypot(column - middle[0], row - middle[1]) < radius - 0.3 * steps[above]] = 0
    known[points > 0] = 1  # what is marked counts, whatever is not marked near it
    return _Maps(points, known, owner)


def _with_next(vertebrae: Vertebrae) -> Vertebrae:
    """With the vertebrae beyond the marked ends appended, by name and place alone."""
    centres, levels = [vertebrae.centres], [vertebrae.levels]
    steps, down = vertebrae.steps, vertebrae.down
    marked = set(vertebrae.levels.tolist())
    for name, neighbour, away in NEXT:
        level = LEVELS.index(name)
        if level in marked:
            continue
        for i in np.flatnonzero(vertebrae.levels == LEVELS.index(neighbour)):
            centres.append(vertebrae.centres[i : i + 1] + away * steps[i] * down[i])
            levels.append(np.array([level]))
    added = sum(map(len, levels)) - len(vertebrae.levels)
    corners = np.concatenate([vertebrae.corners, np.full((added, 4, 2), np.nan)])
    return Vertebrae(np.concatenate(centres), corners, np.concatenate(levels))


def _gaps(levels: np.ndarray) -> np.ndarray:
    """``[n - 1]`` bool: a level between two neighbours is not marked."""
    named = (levels[1:] != UNKNOWN) & (levels[:-1] != UNKNOWN)
    return named & (np.diff(levels) > 1)


def _beyond(
    centre: np.ndarray, along: np.ndarray, step: float, reach: float, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Cells past an end of the marked spine where further vertebrae may stand."""
    x, y = column - centre[0], row - centre[1]
    u = (x * along[0] + y * along[1]) / step
    v = np.abs(x * along[1] - y * along[0]) / step
    return (u > 0.6) & (u < reach) & (v < BESIDE)


def _add_peak(heat: np.ndarray, point: np.ndarray, sigma: float) -> None:
    """The larger of the map and a Gaussian about a point in cells, 1 at the cell that holds the point."""
    h, w = heat.shape
    if not (0 <= point[0] < w and 0 <= point[1] < h):
        return
    x, y = int(point[0]), int(point[1])
    reach = int(np.ceil(3 * sigma))
    left, right, top, bottom = max(0, x - reach), min(w, x + reach + 1), max(0, y - reach), min(h, y + reach + 1)
    across = np.exp(-((np.arange(left, right) + 0.5 - point[0]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(top, bottom) + 0.5 - point[1]) ** 2) / (2 * sigma**2))
    part = heat[top:bottom, left:right]
    np.maximum(part, down[:, None] * across, out=part)
    heat[y, x] = 1
