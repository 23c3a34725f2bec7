"""One frame of coordinates, and the 3x3 affines that move image and points together.

A point is ``(x, y)`` in continuous image coordinates: the image covers ``[0, W] x [0, H]`` and the
centre of its first pixel is ``(0.5, 0.5)``. Libraries that put the first centre at ``(0, 0)``
(OpenCV, scikit-image, array indices) differ by half a pixel; the conversion stands in this file only.
Sizes are ``(height, width)``. A matrix maps points of the old frame to points of the new one.
"""

import cv2
import numpy as np

HALF_PIXEL = 0.5
AREA_SHRINK_BELOW = 0.75  # below this scale bilinear sampling aliases: shrink by area first


def points_from_indices(indices: np.ndarray) -> np.ndarray:
    """Pixel indices (first pixel = 0) to continuous coordinates."""
    return np.asarray(indices) + HALF_PIXEL


def points_to_indices(points: np.ndarray) -> np.ndarray:
    """Continuous coordinates to (fractional) pixel indices (first pixel = 0)."""
    return np.asarray(points) - HALF_PIXEL


def scale(sx: float, sy: float | None = None) -> np.ndarray:
    return np.diag([sx, sx if sy is None else sy, 1.0])


def translate(dx: float, dy: float) -> np.ndarray:
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def rotate(angle_deg: float, centre_xy: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Rotation about ``centre_xy``; positive turns x towards y (clockwise on the screen)."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    x, y = centre_xy
    return compose(translate(-x, -y), turn, translate(x, y))


def flip_horizontal(width: float) -> np.ndarray:
    """Mirror left to right: ``x -> width - x``. The caller permutes the corners."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def letterbox(size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """Scale by one factor and centre: the whole film is seen and angles stay what they are."""
    (height, width), (new_height, new_width) = size, new_size
    s = min(new_height / height, new_width / width)
    return compose(scale(s), translate((new_width - s * width) / 2, (new_height - s * height) / 2))


def compose(*matrices: np.ndarray) -> np.ndarray:
    """One matrix that applies the given ones from first to last."""
    total = np.eye(3)
    for matrix in matrices:
        total = matrix @ total
    return total


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points ``[..., 2]`` in the new frame, float64; nan stays nan."""
    return np.asarray(points, dtype=np.float64) @ matrix[:2, :2].T + matrix[:2, 2]


def scale_of(matrix: np.ndarray) -> float:
    """Length of a unit of the old frame in the new one (geometric mean over directions)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def warp_image(image: np.ndarray, matrix: np.ndarray, new_size: tuple[int, int], *, fill: float = 0) -> np.ndarray:
    """Resample ``[H, W]`` or ``[H, W, C]`` into the new frame, by the matrix that moves its points."""
    s = scale_of(matrix)
    if s < AREA_SHRINK_BELOW:
        height, width = image.shape[:2]
        small = max(1, round(width * s)), max(1, round(height * s))
        matrix = matrix @ scale(width / small[0], height / small[1])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    to_centre = translate(HALF_PIXEL, HALF_PIXEL)  # index frame -> continuous frame
    index_matrix = np.linalg.inv(to_centre) @ matrix @ to_centre
    return cv2.warpAffine(
        image,
        index_matrix[:2],
        (new_size[1], new_size[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
