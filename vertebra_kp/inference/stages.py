"""What runs a stage of a spine network's prediction: torch (``torch_stages``), or an exported network."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from vertebra_kp.inference.spine_maps import SpineMaps


class Stage(Protocol):
    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""

    def tensors(self) -> Iterator[bytes]:
        """The weights, for a fingerprint."""


class SpineStage(Stage, Protocol):
    def maps(self, seen: np.ndarray, *, mirrored: bool) -> SpineMaps:
        """Of an image ``[H, W]`` float32 in 0..1, H and W divisible by 32; ``mirrored``: the mean with its mirror
        image."""


class VertebraStage(Stage, Protocol):
    def corners(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of squares ``[n, H, W]`` float32 in 0..1 with a vertebra each: points ``[n, 4, 2]`` and covariances
        ``[n, 4, 2, 2]`` in px of the square, scores ``[n, 4]`` in 0..1."""


class LevelStage(Stage, Protocol):
    def log_probabilities(self, seen: np.ndarray, found: np.ndarray) -> np.ndarray:
        """``[rows, L]`` of a reformation ``[H, W]`` float32 in 0..1; ``found`` ``[rows]`` hold a vertebra."""
