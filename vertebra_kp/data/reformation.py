"""Curved planar reformations for the level network: the image along a spine, a row of equal height per vertebra.

In it every spine is straight, upright and of one size, so that what is left to see is anatomy: ribs, diaphragm,
pelvis, the shape of the bodies.
"""

import cv2
import numpy as np

from vertebra_kp.config.spine import ReformationConfig
from vertebra_kp.core.anatomy import LEVELS, UNKNOWN
from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.data.spine_films import SpineFilm, Vertebrae
from vertebra_kp.data.transforms import augmentation_of, change_intensity

SAMPLES = 8  # of the line in each step
SMOOTH, SMOOTH_DIRECTION = 0.35, 1.0  # steps: standard deviations by which the line and its direction are smoothed
END = 3  # steps over which the direction at an end is measured
REACH = 40  # steps that the line goes on, straight, past both ends
SHRUNK_FROM = 1.4  # px of the image per px of the reformation: from here on it is blurred before it is sampled
JITTER = 0.08  # of a step: standard deviation of centres in training, as found ones have it
SIZE_JITTER = 0.15  # log-range, to both sides, of the width of a step across the spine
SHIFT = 0.2, 0.4  # steps: range of shifts along the spine and across
MOST_BEYOND = 4, 2  # neighbours above and below the marked ones that count as found: the finder sees the neck
DEEPEST_CUT = 0.38  # of the width, from one side


def reformat(
    image: np.ndarray,
    centres: np.ndarray,
    first: float,
    config: ReformationConfig,
    *,
    rows: int | None = None,
    size: float = 1.0,
    aside: float = 0.0,
    fill: float = 0.0,
) -> np.ndarray:
    """An image ``[H, W]`` along the line of vertebrae at ``centres`` ``[n, 2]``, n >= 2, in its pixels.

    The centre of vertebra i lies in the middle of row i - ``first``, where each of ``rows`` is ``step_px`` high.
    ``size`` widens steps across the spine and ``aside`` shifts by so many; beyond the image all is ``fill``.
    """
    height, width = (rows or config.rows) * config.step_px, config.size[1]
    u, line, direction = _line(centres)
    at = first - 0.5 + (np.arange(height) + 0.5) / config.step_px
    xy, along = (
        np.stack([np.interp(at, u, column) for column in values.T], axis=1) for values in (line, direction)
    )
    step = np.linalg.norm(along, axis=1)
    usual = float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1)))
    across = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.maximum(step, 1e-6)[:, None]
    wide = (step + usual) / 2 * size  # bodies grow towards the feet, the chest does not
    beside = ((np.arange(width) + 0.5) / width * 2 - 1) * config.beside + aside
    grid = xy[:, None] + beside[None, :, None] * (wide[:, None] * across)[:, None]
    x, y = np.moveaxis(points_to_indices(grid), -1, 0).astype(np.float32)
    if usual > SHRUNK_FROM * config.step_px:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * usual / config.step_px)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderValue=fill)


def _line(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places ``u`` in steps, 0 at the first centre; the line's points there and its change in one step."""
    n = len(centres)
    end = min(END, n - 1)
    above, below = (centres[end] - centres[0]) / end, (centres[-1] - centres[-1 - end]) / end
    u = np.arange(-REACH * SAMPLES, (n - 1 + REACH) * SAMPLES + 1) / SAMPLES
    xy = np.stack([np.interp(u, np.arange(n), column) for column in centres.T], axis=1)
    xy += np.minimum(u, 0)[:, None] * above + np.maximum(u - (n - 1), 0)[:, None] * below
    return u, _smooth(xy, SMOOTH), np.gradient(_smooth(xy, SMOOTH_DIRECTION), 1 / SAMPLES, axis=0)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(4 * sigma * SAMPLES)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma * SAMPLES)) ** 2)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], axis=1)


def named_run(vertebrae: Vertebrae) -> Vertebrae:
    """The longest row of vertebrae whose names follow each other."""
    named = vertebrae.levels != UNKNOWN
    follows = named[1:] & named[:-1] & (np.diff(vertebrae.levels) == 1)
    best = start = 0
    best_end = 0
    for i in range(len(named)):
        if i and not follows[i - 1]:
            start = i
        if named[i] and i + 1 - start > best_end - best:
            best, best_end = start, i + 1
    part = slice(best, best_end)
    return Vertebrae(vertebrae.centres[part], vertebrae.corners[part], vertebrae.levels[part])


def random_reformation(
    film: SpineFilm, config: ReformationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """A training view ``[H, W]`` float32 in 0..1, ``found`` ``[rows]``, and the first row's place in ``LEVELS``.

    The film has at least ``least`` vertebrae whose names follow each other.
    """
    run = named_run(film.vertebrae)
    centres, level = run.centres, int(run.levels[0])
    if rng.random() < config.beyond:
        above, below = (int(rng.integers(0, most + 1)) for most in MOST_BEYOND)
        above, below = min(above, level), min(below, len(LEVELS) - level - len(centres))
        u, line, _ = _line(centres)
        at = np.concatenate([np.arange(-above, 0), np.arange(below) + len(centres)])
        more = np.stack([np.interp(at, u, column) for column in line.T], axis=1)
        centres, level = np.concatenate([more[:above], centres, more[above:]]), level - above
    if len(centres) > config.rows or (rng.random() < config.part and len(centres) > config.least):
        kept = int(rng.integers(config.least, min(len(centres), config.rows) + 1))
        start = int(rng.integers(0, len(centres) - kept + 1))
        centres, level = centres[start : start + kept], level + start
    n = len(centres)
    step = np.linalg.norm(np.diff(centres, axis=0), axis=1).mean()
    centres = centres + rng.normal(0, JITTER * step, centres.shape)
    above = int(rng.integers(0, config.rows - n + 1))
    image = reformat(
        film.image,
        centres,
        rng.uniform(-SHIFT[0], SHIFT[0]) - above,
        config,
        size=float(np.exp(rng.uniform(-SIZE_JITTER, SIZE_JITTER))),
        aside=rng.uniform(-SHIFT[1], SHIFT[1]),
        fill=0.0 if rng.random() < 0.5 else float(rng.uniform(0, 255)),
    )
    image = image.astype(np.float32) / 255
    if rng.random() < config.collimated:
        _cut_a_side(image, above * config.step_px, (above + n) * config.step_px, rng)
    if config.flip and rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    found = np.zeros(config.rows, dtype=bool)
    found[above : above + n] = True
    return change_intensity(image, augmentation_of(config), rng), found, level - above


def _cut_a_side(image: np.ndarray, top: int, bottom: int, rng: np.random.Generator) -> None:
    """Blank one side, in place; from above and below not further than the vertebrae's rows."""
    height, width = image.shape
    deep = rng.random()
    fill = float(rng.random()) if rng.random() < 0.3 else 0.0
    side = int(rng.integers(4))
    if side == 0:
        image[:, : int(deep * DEEPEST_CUT * width)] = fill
    elif side == 1:
        image[:, width - int(deep * DEEPEST_CUT * width) :] = fill
    elif side == 2:
        image[: int(deep * top)] = fill
    else:
        image[height - int(deep * (height - bottom)) :] = fill
