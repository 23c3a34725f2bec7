"""Single vertebrae on a film, each upright in a square of its own: what the crop refinement trains on and sees."""

from dataclasses import replace

import numpy as np

from vertebra_kp.config.schema import DataConfig
from vertebra_kp.core.anatomy import UNKNOWN, Schema, State
from vertebra_kp.core.geometry import compose, rotate, scale, translate
from vertebra_kp.data.films import Film, Films, check_labels

NEIGHBOURS = 2  # above and below, whose median width is a vertebra's: one alone may be predicted much too narrow
# More than this many degrees against the median of the same vertebrae, no spine turns: its corners are mixed up.
TURNED_MOST = 30


class PatchFilms:
    """The fully labelled vertebrae of films, one after the other."""

    def __init__(self, films: Films, data: DataConfig) -> None:
        """``data.patch`` says how they are cut. Raises FilmError when nothing is labelled."""
        assert data.patch is not None
        self.films, self.schema, self.widths = films, data.film_schema, data.patch.widths
        labelled = [films.at(0, i) for i in range(len(films))]
        check_labels(labelled, self.schema)
        whole = [(film.states == State.LABELLED).all(axis=1) for film in labelled]
        self.places = [(i, int(level)) for i, levels in enumerate(whole) for level in np.flatnonzero(levels)]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def identity(self) -> str:
        return f"{self.films.identity}-patches-{self.widths:g}"

    def at(self, epoch: int, index: int) -> Film:
        i, level = self.places[index]
        film = self.films.at(epoch, i)
        patch = patch_of(film, self.schema, level, windows(film.points_xy, self.widths)[level])
        return replace(patch, points_xy=film.points_xy[level : level + 1], states=film.states[level : level + 1])


def patch_of(film: Film, schema: Schema, level: int, window: np.ndarray) -> Film:
    """A vertebra of the film without labels, seen through ``window``."""
    name = f"{film.id}:{schema.levels[level]}"
    return replace(
        film,
        id=name,
        window=window,
        points_xy=np.full((1, 4, 2), np.nan, dtype=np.float32),
        states=np.full((1, 4), State.UNLABELLED),
        slips=np.full(1, UNKNOWN, dtype=np.int8),
        view=UNKNOWN,
        image_class=UNKNOWN,
    )


def windows(points_xy: np.ndarray, widths: float) -> np.ndarray:
    """Matrices ``[levels, 3, 3]`` from the frame of corners ``[levels, 4, 2]`` to unit squares, nan where unknown.

    A square stands about the middle of its vertebra, turned with it (with its neighbours where it lies across
    them), its side ``widths`` times the median width of the vertebra and its neighbours.
    """
    across = (points_xy[:, 1] - points_xy[:, 0] + points_xy[:, 3] - points_xy[:, 2]) / 2
    width, turned = np.linalg.norm(across, axis=1), np.rad2deg(np.arctan2(across[:, 1], across[:, 0]))
    found = np.full((len(points_xy), 3, 3), np.nan)
    for level in np.flatnonzero(np.isfinite(points_xy).all(axis=(1, 2))):
        near = slice(max(0, level - NEIGHBOURS), level + NEIGHBOURS + 1)
        side = widths * np.nanmedian(width[near])
        if side > 0:
            x, y = points_xy[level].mean(axis=0)
            angle, neighbours = turned[level], np.nanmedian((turned[near] - turned[level] + 180) % 360 - 180)
            if abs(neighbours) > TURNED_MOST:
                angle += neighbours
            found[level] = compose(translate(-x, -y), rotate(-angle), scale(1 / side), translate(0.5, 0.5))
    return found
