"""Images that show the same picture: found by small normalised thumbnails."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vertebra_kp.data.record import Record

THUMBNAIL = (48, 24)  # height, width: enough to distinguish two spines, small enough for thousands of images
SAME_ABOVE = 0.97  # correlation; all but two of the 481 images of AASCE that show different patients stay below


@dataclass(frozen=True)
class SameFilm:
    first: str
    second: str
    correlation: float


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Image ``[H, W]`` as a vector of mean 0 and length 1; a blank image gives zeros."""
    small = cv2.resize(image.astype(np.float32), THUMBNAIL[::-1], interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def same_films(records: Sequence[Record], thumbnails: Sequence[np.ndarray]) -> list[SameFilm]:
    """Pairs of images whose thumbnails correlate above ``SAME_ABOVE``, most alike first."""
    table = np.stack(list(thumbnails))
    pairs = []
    for i, row in enumerate(table):
        correlations = table[i + 1 :] @ row
        for j in np.flatnonzero(correlations > SAME_ABOVE):
            pairs.append(SameFilm(records[i].id, records[i + 1 + int(j)].id, float(correlations[j])))
    return sorted(pairs, key=lambda pair: -pair.correlation)
