"""How far two labellings of the same image differ: no network can be measured to be better than that.

The two images of a pair are registered by the affine map of the largest correlation (Evangelidis and Psarakis,
PAMI 2008), then the labels of one stand beside those of the other.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine, compose, scale
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.record import Record
from vertebra_kp.evaluation.metrics import FilmResult

HEIGHT = 512  # of the images during registration
SMOOTHING = 5  # pixels of the kernel that takes the grain off both
SAME_FILM = 0.95  # correlation from which on two pictures are the same image; below, the patient has moved
CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 300, 1e-6)


@dataclass(frozen=True)
class LabelledTwice:
    """``result`` has the first image's labels as truth and the second's, brought into its frame, as prediction."""

    result: FilmResult
    correlation: float

    @property
    def same_film(self) -> bool:
        return self.correlation >= SAME_FILM


def compare_labels(first: Record, second: Record, schema: Schema) -> LabelledTwice:
    """Raises UserError where one has no labels, or the images cannot be registered."""
    if first.points_xy_image is None or first.states is None or second.points_xy_image is None:
        raise UserError(f"{first.id}, {second.id}: both need labels; leave the pair out")
    films = [to_uint8(read_film(record.image_path)) for record in (first, second)]
    to_first, correlation = register(*films)
    found = apply_affine(to_first, second.points_xy_image)
    about = f"{first.id} / {second.id}", first.group, (films[0].shape[0], films[0].shape[1]), first.spacing_mm
    result = FilmResult(*about, first.points_xy_image, first.states, found, np.ones(schema.num_levels))
    return LabelledTwice(result, correlation)


def register(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """The 3x3 matrix from the second image's frame ``[H, W]`` to the first one's, and their correlation there."""
    factor = HEIGHT / first.shape[0]
    size = (max(1, round(first.shape[1] * factor)), HEIGHT)
    fixed, moving = (cv2.resize(film, size, interpolation=cv2.INTER_AREA) for film in (first, second))
    shrink = [scale(size[0] / film.shape[1], size[1] / film.shape[0]) for film in (first, second)]
    start, mask = np.eye(2, 3, dtype=np.float32), np.full(fixed.shape, 255, np.uint8)
    try:
        found = cv2.findTransformECC(fixed, moving, start, cv2.MOTION_AFFINE, CRITERIA, mask, SMOOTHING)
    except cv2.error as error:
        raise UserError("the two images cannot be registered: they show too little in common") from error
    # Of pixel indices and of continuous coordinates alike, but for a hundredth of a pixel: the map is close to 1.
    to_second = np.vstack([found[1], [0, 0, 1]])
    return compose(shrink[1], np.linalg.inv(to_second), np.linalg.inv(shrink[0])), found[0]
