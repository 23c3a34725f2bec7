"""Borders of one grey around an image: what a scanner, a viewer or a square format adds."""

import numpy as np

FLAT_WITHIN = 10  # grey levels of 255 that the middle 96 % of a border's row or column may span
LEAST_LEFT = 0.25  # of each side: an image that would lose more has no border, but little contrast


def content_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of what is no border of an image ``[H, W]`` uint8."""
    height, width = image.shape
    top, bottom = _ends(image)
    left, right = _ends(image[top:bottom].T)
    if bottom - top < LEAST_LEFT * height or right - left < LEAST_LEFT * width:
        return 0, 0, height, width
    return top, left, bottom, right


def _ends(image: np.ndarray) -> tuple[int, int]:
    """First row that is not flat, and the one after the last."""
    low, high = np.percentile(image, (2, 98), axis=1)
    content = np.flatnonzero(high - low > FLAT_WITHIN)
    return (int(content[0]), int(content[-1]) + 1) if len(content) else (0, len(image))
