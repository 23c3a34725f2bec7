"""Images that show the same picture: found by small normalised thumbnails."""

from collections.abc import Sequence

import cv2
import numpy as np

THUMBNAIL = (48, 24)  # height, width: enough to distinguish two spines, small enough for thousands of images
SAME_ABOVE = 0.97  # correlation; all but two of the 481 images of AASCE that show different patients stay below


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Image ``[H, W]`` as a vector of mean 0 and length 1; a blank image gives zeros."""
    small = cv2.resize(image.astype(np.float32), THUMBNAIL[::-1], interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def same_films(thumbnails: Sequence[np.ndarray]) -> list[tuple[int, int, float]]:
    """(place, place, correlation) of thumbnails that correlate above ``SAME_ABOVE``, most alike first."""
    table = np.array(thumbnails)
    pairs = []
    for i, small in enumerate(table):
        correlations = table[i + 1 :] @ small
        pairs += [(i, i + 1 + int(j), float(correlations[j])) for j in np.flatnonzero(correlations > SAME_ABOVE)]
    return sorted(pairs, key=lambda pair: -pair[2])
