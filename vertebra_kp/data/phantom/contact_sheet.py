"""A picture of what the presets draw: films, and the same films with their corners."""

import cv2
import numpy as np

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.data.phantom.film import ANATOMIES, PhantomFilm, draw_film
from vertebra_kp.data.phantom.presets import PRESETS

CORNER_COLOURS_BGR = ((64, 64, 255), (64, 220, 64), (255, 144, 32), (32, 220, 255))  # TL, TR, BL, BR
SHIFT = 4  # fractional bits of cv2's coordinates
GAP_PX = 4


def contact_sheet(seed: int, films_per_preset: int, film_size: tuple[int, int]) -> np.ndarray:
    """``[H, W, 3]`` uint8 BGR: a row per schema, preset by preset."""
    rows = []
    for name in ANATOMIES:
        row = []
        for preset in PRESETS:
            films = [draw_film(SCHEMAS[name], preset, seed, i, film_size) for i in range(films_per_preset)]
            row += [cv2.cvtColor(film.image, cv2.COLOR_GRAY2BGR) for film in films]
            row += [_with_corners(film) for film in films]
        rows.append(np.concatenate([np.pad(p, ((0, GAP_PX), (0, GAP_PX), (0, 0))) for p in row], axis=1))
    return np.concatenate(rows)


def _with_corners(film: PhantomFilm) -> np.ndarray:
    picture = cv2.cvtColor(film.image, cv2.COLOR_GRAY2BGR)
    for corners in np.round(points_to_indices(film.points_xy_image) * (1 << SHIFT)):
        for point, colour in zip(corners, CORNER_COLOURS_BGR, strict=True):
            if np.isfinite(point).all():
                cv2.circle(picture, point.astype(int).tolist(), 2 << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
    return picture
