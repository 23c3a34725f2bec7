"""Images with all that is known of their vertebrae: named or not, with corners or only centres."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, UNKNOWN, VIEWS, Schema, State
from vertebra_kp.core.geometry import apply_affine, scale, warp_image
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.record import Record

log = logging.getLogger(__name__)

KEPT_STEP_PX = 48.0  # distance of neighbouring vertebrae in the pixels that are kept
KEPT_SIDE_PX = 1280


@dataclass(frozen=True)
class Vertebrae:
    """``n`` vertebrae from head to foot, in continuous coordinates of one frame.

    ``centres`` ``[n, 2]``; ``corners`` ``[n, 4, 2]``, nan where not marked; ``levels`` ``[n]``, places in
    ``LEVELS`` or ``UNKNOWN``.
    """

    centres: np.ndarray
    corners: np.ndarray
    levels: np.ndarray

    def moved(self, matrix: np.ndarray) -> "Vertebrae":
        return Vertebrae(apply_affine(matrix, self.centres), apply_affine(matrix, self.corners), self.levels)

    @property
    def steps(self) -> np.ndarray:
        """``[n]`` distance to the next vertebra, from both sides, by its name where names leave gaps."""
        n = len(self.centres)
        between = np.full(n + 1, np.nan)
        if n > 1:
            apart = np.where((self.levels[1:] == UNKNOWN) | (self.levels[:-1] == UNKNOWN), 1, np.diff(self.levels))
            between[1:-1] = np.linalg.norm(np.diff(self.centres, axis=0), axis=1) / np.maximum(apart, 1)
        pairs = np.stack([between[:-1], between[1:]])
        known = np.isfinite(pairs)
        mean = np.where(known, pairs, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return np.where(known.any(axis=0), mean, np.nan)

    @property
    def down(self) -> np.ndarray:
        """``[n, 2]`` unit vectors towards the foot; straight down of a lone vertebra."""
        if len(self.centres) < 2:
            return np.tile([0.0, 1.0], (len(self.centres), 1))
        along = np.gradient(self.centres, axis=0)
        return along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class SpineFilm:
    """``image`` ``[H, W]`` uint8 in kept pixels, its vertebrae in that frame, ``view`` a place in ``VIEWS``."""

    id: str
    image: np.ndarray
    vertebrae: Vertebrae
    view: int


def vertebrae_of(record: Record, schema: Schema) -> Vertebrae:
    """All vertebrae that a record marks, in the original image's frame; partly marked ones are left out."""
    found: list[tuple[np.ndarray, np.ndarray, int]] = []
    if record.points_xy_image is not None and record.states is not None:
        corners = np.where((record.states == State.LABELLED)[..., None], record.points_xy_image, np.nan)
        for name, level, exists in zip(schema.levels, corners, schema.exists, strict=True):
            if np.isfinite(level[exists]).all():
                found.append((middle_of(level, exists), level, LEVELS.index(name)))
    for i, centre in enumerate(() if record.centres_xy_image is None else record.centres_xy_image):
        if np.isfinite(centre).all():
            found.append((centre, np.full((4, 2), np.nan), LEVELS.index(schema.levels[i])))
    found.sort(key=lambda one: one[2])
    for corners in () if record.unnamed_xy_image is None else record.unnamed_xy_image:
        found.append((corners.mean(axis=0), corners, UNKNOWN))
    if not found:
        return Vertebrae(np.empty((0, 2)), np.empty((0, 4, 2)), np.empty(0, dtype=np.int64))
    centres, all_corners, levels = zip(*found, strict=True)
    return Vertebrae(np.stack(centres), np.stack(all_corners), np.array(levels))


HALF_BODY = 0.55  # height of half a body over the width of its endplate: where the middle of C2 and S1 is put


def middle_of(corners: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """The middle of four corners; of an endplate alone, a point as far from it as the middle of a usual body."""
    if exists.all():
        return corners.mean(axis=0)
    left, right = corners[exists]
    across = right - left
    towards_foot = np.array([-across[1], across[0]])
    return (left + right) / 2 + HALF_BODY * towards_foot * (1 if exists[:2].all() else -1)


def spine_film(record: Record, schema: Schema) -> SpineFilm | None:
    """The record's image in kept pixels; None for one with fewer than two marked vertebrae. Raises FilmError."""
    vertebrae = vertebrae_of(record, schema)
    if len(vertebrae.centres) < 2:
        return None
    image = to_uint8(read_film(record.image_path))
    small, matrix = in_kept_pixels(image, float(np.nanmedian(vertebrae.steps)))
    view = VIEWS.index(record.view or schema.view)
    return SpineFilm(record.id, small, vertebrae.moved(matrix), view)


def in_kept_pixels(image: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """An image ``[H, W]`` with vertebrae ``step`` px apart as it is kept for training, and the matrix there."""
    height, width = image.shape
    factor = min(1, KEPT_STEP_PX / step, KEPT_SIDE_PX / max(height, width))
    kept = max(1, round(height * factor)), max(1, round(width * factor))
    matrix = scale(kept[1] / width, kept[0] / height)
    return image if kept == image.shape else warp_image(image, matrix, kept), matrix


def spine_films(records: Sequence[Record], schema: Schema, workers: int = 2) -> list[SpineFilm]:
    """Those of the records that have vertebrae to train on."""
    with ThreadPoolExecutor(workers) as pool:
        films = list(pool.map(partial(spine_film, schema=schema), records))
    found = [film for film in films if film is not None]
    if len(found) < len(films):
        log.warning("%d images have fewer than two marked vertebrae and are left out", len(films) - len(found))
    return found
