"""Curved planar reformations of spines: images resampled along the line of the vertebrae, and compared.

What matches are ribs, bodies, diaphragm and pelvis of one patient in two images, whatever the vertebrae are
called: names that differ leave the reformations a level or more apart.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.core.spine_curve import BEYOND, LEAST_LEVELS, line_through

PIXELS = 8  # of a reformation in each level
HALF_WIDTH = 4.5  # levels to each side of the line: the width of the chest
LEFT_OUT = 2  # labelled levels at either end that do not define the line where enough remain: it bends at its ends
# Standard deviations, in levels, of the kernels between which structures count, and of the one that evens out how
# strongly they show: bodies and ribs, then whatever is larger.
BANDS = ((0.0, 0.75, 1.0), (0.3, 2.5, 3.0))
FAINT = 4.0  # grey levels: what shows less than this is grain
MOST_LEVELS = 2.5  # that two reformations are shifted along each other
STRETCHES = (0.96, 1.0, 1.04)
SIDEWAYS = (-3, 0, 3)  # pixels
LEAST_SHARED = 1500  # pixels that two reformations must have in common
BLANK = 1e-6  # sums of squares below it are rounding errors
ELSEWHERE = 0.5  # levels: a match further off than this is another one
# By how much the best match must correlate better than any other. The shifts among three images of one patient
# must add up to nothing: on AASCE they do for 63 of 65 triples of clear pairs, for 159 of all 202.
CLEAR_FROM = 0.05


@dataclass(frozen=True)
class Reformation:
    """``picture`` [h, w, bands] float32, locally normalised; ``visible`` [h, w] bool: inside the image."""

    picture: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class LevelOffset:
    """``levels`` that the first image's name of a vertebra lies below (+) or above (-) the second image's name: L2
    in the first and L1 in the second is 1; ``correlation`` of the reformations there, and by what ``margin`` it is
    better than at any other place.
    """

    levels: float
    correlation: float
    margin: float

    @property
    def clear(self) -> bool:
        return self.margin > CLEAR_FROM


def reformat(image: np.ndarray, points_xy: np.ndarray) -> Reformation | None:
    """An image ``[H, W]`` uint8 along the line of its vertebrae ``[levels, 4, 2]``, nan where unknown.

    Its middle row is that of the middle level, whichever are labelled. None where they do not define the line.
    """
    known = np.flatnonzero(np.isfinite(points_xy).all(axis=(1, 2)))
    out = max(0, min(LEFT_OUT, (len(known) - LEAST_LEVELS) // 2))
    inner = points_xy.copy()
    inner[known[:out]], inner[known[len(known) - out :]] = np.nan, np.nan
    line = line_through(inner)
    if line is None:
        return None
    u = np.arange(-BEYOND, len(points_xy) - 1 + BEYOND, 1 / PIXELS)
    xy, across, step = line.at(u)
    aside = np.arange(-HALF_WIDTH, HALF_WIDTH, 1 / PIXELS)
    step = (step + np.median(step)) / 2  # bodies grow towards the feet, the chest does not
    grid = xy[:, None] + aside[None, :, None] * (step[:, None] * across)[:, None]
    x, y = np.moveaxis(points_to_indices(grid.astype(np.float32)), -1, 0)
    grey = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderValue=0).astype(np.float32)
    height, width = image.shape
    visible = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)
    # The image's edge is none of the patient's structures: what lies beyond it has no weight.
    bands = [_normalised(grey, visible, *(PIXELS * sigma for sigma in band)) for band in BANDS]
    return Reformation(np.stack(bands, axis=-1), visible > 0)


def _normalised(
    grey: np.ndarray, visible: np.ndarray, finest: float, coarsest: float, evened: float
) -> np.ndarray:
    fine = _blurred(grey, visible, finest) if finest else grey
    band = (fine - _blurred(grey, visible, coarsest)) * visible
    return band / (np.sqrt(_blurred(band * band, visible, evened)) + FAINT)


def _blurred(grey: np.ndarray, visible: np.ndarray, sigma: float) -> np.ndarray:
    """Mean of what is visible about each pixel."""
    sums, weights = (cv2.GaussianBlur(values, (0, 0), sigma) for values in (grey * visible, visible))
    return sums / np.maximum(weights, np.finfo(np.float32).eps)


def level_offset(first: Reformation, second: Reformation) -> LevelOffset | None:
    """Names further apart than ``MOST_LEVELS`` are reported as fewer.

    None where too little of both is visible, or nothing of it is alike.
    """
    most = round(MOST_LEVELS * PIXELS)
    shifts = np.arange(-most, most + 1)
    found = np.full(len(shifts), -1.0)
    height, width = first.visible.shape
    length = next_fast_len(height + most, real=True)  # longer: sums must not wrap around
    ours = _spectra(first.picture, first.visible, length)
    for stretch in STRETCHES:
        move = np.array([[1, 0, 0], [0, stretch, (1 - stretch) * height / 2]])
        picture = cv2.warpAffine(second.picture, move, (width, height))
        mask = cv2.warpAffine(second.visible.astype(np.uint8), move, (width, height), flags=cv2.INTER_NEAREST)
        theirs = _spectra(picture, mask, length)
        for aside in SIDEWAYS:
            here = ours[..., max(0, aside) : width + min(0, aside)]
            there = theirs[..., max(0, -aside) : width - max(0, aside)]
            found = np.maximum(found, _correlations(here, there, length)[shifts])
    best = found.argmax()
    if found[best] < 0:
        return None
    other = found[np.abs(shifts - shifts[best]) > ELSEWHERE * PIXELS].max()
    return LevelOffset(float(shifts[best] / PIXELS), float(found[best]), float(found[best] - other))


def _spectra(picture: np.ndarray, visible: np.ndarray, length: int) -> np.ndarray:
    """Down every column, of what is visible: weights, values and squares ``[1 + 2 bands, frequencies, w]``."""
    values = np.moveaxis(picture, -1, 0).astype(np.float64) * visible
    return rfft(np.concatenate([visible[None], values, values**2]), length, axis=1)


def _correlations(first: np.ndarray, second: np.ndarray, length: int) -> np.ndarray:
    """Mean over the bands of the correlation of what both show, by how many rows the second is moved down.

    From ``_spectra`` of both; -1 where they share less than ``LEAST_SHARED`` pixels. Padfield, "Masked object
    registration in the Fourier domain", IEEE Transactions on Image Processing 2012.
    """
    bands = len(first) // 2

    def shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Sums of products ``[n, length]``, by how many rows the other is moved down."""
        return irfft((one * other.conj()).sum(axis=-1), length)

    (weights, values, squares), (their_weights, their_values, their_squares) = (
        (spectra[:1], spectra[1 : bands + 1], spectra[bands + 1 :]) for spectra in (first, second)
    )
    count = np.maximum(shared(weights, their_weights), 1.0)
    sums, their_sums = shared(values, their_weights), shared(weights, their_values)
    spread = shared(squares, their_weights) - sums**2 / count
    their_spread = shared(weights, their_squares) - their_sums**2 / count
    norm = np.sqrt(np.maximum(spread * their_spread, 0))
    together = shared(values, their_values) - sums * their_sums / count
    correlation = (together / np.maximum(norm, BLANK)).mean(axis=0)
    return np.where(count[0].round() >= LEAST_SHARED, correlation, -1.0)
