"""Grays of large films looked up and counted in blocks of rows: numpy takes eight bytes for each pixel."""

from collections.abc import Iterator

import numpy as np

BLOCK = 2**22  # pixels


def looked_up(table: np.ndarray, film: np.ndarray) -> np.ndarray:
    """``table[film]`` of a film [H, W] of unsigned integers."""
    found = np.empty(film.shape, table.dtype)
    for rows in _blocks(film):
        found[rows] = table[film[rows]]
    return found


def counts(film: np.ndarray, values: int) -> np.ndarray:
    """``[values]``: how often each whole number from 0 stands in a film [H, W] of unsigned integers."""
    total = np.zeros(values, dtype=np.int64)
    for rows in _blocks(film):
        total += np.bincount(film[rows].ravel(), minlength=values)
    return total


def _blocks(film: np.ndarray) -> Iterator[slice]:
    height, width = film.shape
    step = max(1, BLOCK // max(1, width))
    return (slice(top, top + step) for top in range(0, height, step))
