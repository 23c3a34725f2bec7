"""Films made worse in a known way and by a known strength: what a network bears, and what its distrust notices."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from vertebra_kp.core.anatomy import FLIPPED_CORNER, Side
from vertebra_kp.core.geometry import apply_affine, compose, flip_horizontal, rotate, warp_image
from vertebra_kp.data.films import Film, Films
from vertebra_kp.data.record import mark_outside

METAL = 250  # grey value of a rod or a screw


@dataclass(frozen=True)
class Disturbance:
    """``apply`` makes a film worse by a strength in ``unit``; of ``strengths`` the first changes nothing."""

    strengths: tuple[float, ...]
    unit: str
    apply: Callable[[Film, float, np.random.Generator], Film]


class DisturbedFilms:
    """Films of another set, each disturbed in the same way whenever it is asked for."""

    def __init__(self, films: Films, kind: str, strength: float) -> None:
        self.films, self.kind, self.strength = films, kind, strength

    def __len__(self) -> int:
        return len(self.films)

    @property
    def identity(self) -> str:
        return f"{self.films.identity}-{self.kind}-{self.strength:g}"

    def at(self, epoch: int, index: int) -> Film:
        film = self.films.at(epoch, index)
        rng = np.random.default_rng([index, *self.kind.encode()])
        return film if self.strength == 0 else DISTURBANCES[self.kind].apply(film, self.strength, rng)


def _noise(film: Film, sd: float, rng: np.random.Generator) -> Film:
    noise = rng.normal(0, sd, film.image.shape)
    return replace(film, image=(film.image + noise).round().clip(0, 255).astype(np.uint8))


def _blur(film: Film, sigma: float, rng: np.random.Generator) -> Film:
    return replace(film, image=cv2.GaussianBlur(film.image, (0, 0), sigma))


def _contrast(film: Film, lost: float, rng: np.random.Generator) -> Film:
    middle = film.image.mean()
    return replace(film, image=(middle + (film.image - middle) * (1 - lost)).round().astype(np.uint8))


def _jpeg(film: Film, lost: float, rng: np.random.Generator) -> Film:
    encoded = cv2.imencode(".jpg", film.image, [cv2.IMWRITE_JPEG_QUALITY, int(100 - lost)])[1]
    return replace(film, image=np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)))


def _inverted(film: Film, strength: float, rng: np.random.Generator) -> Film:
    return replace(film, image=255 - film.image)


def _metal(film: Film, rods: float, rng: np.random.Generator) -> Film:
    """Rods with screws along the middle of the film."""
    image = film.image.copy()
    height, width = image.shape
    thick = max(2, width // 40)
    for _ in range(int(rods)):
        x, top = rng.uniform(0.35, 0.65) * width, rng.uniform(0.2, 0.6) * height
        lean, length = rng.uniform(-0.1, 0.1) * width, 0.25 * height
        upper, lower = (round(x), round(top)), (round(x + lean), round(top + length))
        cv2.line(image, upper, lower, METAL, thick, cv2.LINE_AA)
        for along in np.linspace(0.1, 0.9, 4):
            start = round(x + along * lean), round(top + along * length)
            cv2.line(image, start, (start[0] + width // 10, start[1]), METAL, thick, cv2.LINE_AA)
    return replace(film, image=image)


def _moved(film: Film, matrix: np.ndarray, size: tuple[int, int]) -> Film:
    """The film under a matrix, in a frame of ``size``; corners that leave it are OUTSIDE."""
    points, states, _ = mark_outside(apply_affine(matrix, film.points_xy).astype(np.float32), film.states, size)
    image, to_image = warp_image(film.image, matrix, size), compose(film.to_image, matrix)
    return replace(film, image=image, points_xy=points, states=states, to_image=to_image)


def _rotation(film: Film, angle_deg: float, rng: np.random.Generator) -> Film:
    height, width = film.image.shape
    turn = rotate(angle_deg * rng.choice((-1, 1)), (width / 2, height / 2))
    return _moved(film, turn, (height, width))


def _cut(film: Film, lost: float, rng: np.random.Generator) -> Film:
    height, width = film.image.shape
    return _moved(film, np.eye(3), (round(height * (1 - lost)), width))


def _upside_down(film: Film, strength: float, rng: np.random.Generator) -> Film:
    height, width = film.image.shape
    return _moved(film, rotate(180, (width / 2, height / 2)), (height, width))


def _mirrored(film: Film, strength: float, rng: np.random.Generator) -> Film:
    height, width = film.image.shape
    film = _moved(film, flip_horizontal(width), (height, width))
    corners = list(FLIPPED_CORNER)
    sides: dict[Side | None, Side | None] = {"left": "right", "right": "left", None: None}
    side = sides[film.anterior_side]
    return replace(film, points_xy=film.points_xy[:, corners], states=film.states[:, corners], anterior_side=side)


DISTURBANCES: dict[str, Disturbance] = {
    "noise": Disturbance((0, 5, 10, 20, 40), "grey levels", _noise),
    "blur": Disturbance((0, 1, 2, 4), "pixels", _blur),
    "contrast": Disturbance((0, 0.3, 0.5, 0.7, 0.85), "share lost", _contrast),
    "rotation": Disturbance((0, 5, 10, 20, 40), "degrees", _rotation),
    "cut": Disturbance((0, 0.1, 0.2, 0.35, 0.5), "share of the height lost", _cut),
    "metal": Disturbance((0, 1, 2, 4), "rods", _metal),
    "jpeg": Disturbance((0, 50, 80, 90, 97), "100 less quality", _jpeg),
    "inverted": Disturbance((0, 1), "", _inverted),
    "upside_down": Disturbance((0, 1), "", _upside_down),
    "mirrored": Disturbance((0, 1), "", _mirrored),
}
