"""What a spine network says of one image, in numpy, and the mean with what it says of the mirror image."""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, FLIPPED_CORNER


@dataclass(frozen=True)
class SpineMaps:
    """Of one image, at ``stride``: probabilities ``points`` ``[5, h, w]``, the rest as ``SpineOutput``."""

    points: np.ndarray
    offsets: np.ndarray
    log_step: np.ndarray
    down: np.ndarray
    levels: np.ndarray
    view: np.ndarray
    stride: int


@dataclass(frozen=True)
class SpineArrays:
    """As ``models.spine_network.SpineOutput``, one image each: logits ``points`` ``[5, h, w]`` and so on."""

    points: np.ndarray
    offsets: np.ndarray
    log_step: np.ndarray
    down: np.ndarray
    levels: np.ndarray
    view: np.ndarray

    def unmirrored(self) -> "SpineArrays":
        """What is said of a mirror image, as of the image itself: left and right corners change places."""
        to_left = np.array([-1.0, 1.0], dtype=np.float32)[:, None, None]
        _, h, w = self.offsets.shape
        offsets = self.offsets.reshape(len(CORNERS), 2, h, w)[list(FLIPPED_CORNER)] * to_left
        points = self.points[[0, *(1 + corner for corner in FLIPPED_CORNER)]]
        return SpineArrays(
            points[..., ::-1],
            offsets.reshape(-1, h, w)[..., ::-1],
            self.log_step[..., ::-1],
            (self.down * to_left)[..., ::-1],
            self.levels[..., ::-1],
            self.view,
        )

    def maps(self, stride: int) -> SpineMaps:
        odds = np.exp(self.view - self.view.max())
        points = 1 / (1 + np.exp(-self.points))
        return SpineMaps(points, self.offsets, self.log_step, self.down, self.levels, odds / odds.sum(), stride)


def mean_of(one: SpineArrays, other: SpineArrays) -> SpineArrays:
    return SpineArrays(*((a + b) / 2 for a, b in zip(vars(one).values(), vars(other).values(), strict=True)))
