"""Values in annotation files as what they must be: a ValueError begins with ``what`` was wanted."""

import math
from reprlib import repr as short
from typing import TypeVar

import numpy as np

MAX_NUMBER = 1e6  # pixels, percent, mm: no film is larger, and float32 is still good to 1/16 pixel there

Kind = TypeVar("Kind")


def of_kind(value: object, kind: type[Kind], what: str) -> Kind:
    """The value, if it is an object, list or text (``kind``) and no empty text."""
    if not isinstance(value, kind) or value == "":
        raise ValueError(f"{what}, got {short(value)}")
    return value


def numbers_of(value: object, count: int, what: str) -> list[float]:
    """A list of ``count`` numbers up to ``MAX_NUMBER``."""
    numbers = [number_of(number) for number in value] if isinstance(value, list) else []
    if len(numbers) != count or any(map(math.isnan, numbers)):
        raise ValueError(f"{what}, got {short(value)}")
    return numbers


def number_of(value: object) -> float:
    """A JSON number as float; nan for what is none or is beyond ``MAX_NUMBER``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) <= MAX_NUMBER else math.nan


def is_pixel(points: np.ndarray) -> np.ndarray:
    """Which of ``[..., 2]`` may lie on a film: both numbers are up to ``MAX_NUMBER``, so no NaN."""
    return (np.abs(points) <= MAX_NUMBER).all(axis=-1)
