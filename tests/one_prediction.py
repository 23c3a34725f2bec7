"""A prediction made by hand, with something plain for everything that a test does not name."""

from typing import Any

import numpy as np

from vertebra_kp.inference.prediction import Prediction


def a_prediction(points: np.ndarray, *, file: str = "a.png", size: tuple[int, int] = (64, 64), **more: Any):
    """Corners ``points`` ``[levels, 4, 2]`` in a network's frame that is the image's own."""
    levels = len(points)
    plain = {
        "covariances": np.broadcast_to(np.eye(2), (levels, 4, 2, 2)),
        "scores": np.full((levels, 4), 0.9),
        "presence": np.ones(levels),
        "matrix": np.eye(3),
    }
    return Prediction(file=file, size=size, points_xy_image=points, **(plain | more))
