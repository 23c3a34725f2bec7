"""One film with what is known of it: the only thing that sources return and everything else reads."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, UNKNOWN, Schema, Side, State, View


@dataclass(frozen=True)
class Record:
    """A film on disk and its labels.

    ``points_xy_image`` ``[levels, 4, 2]`` float32, continuous coordinates of the film as displayed
    (after EXIF orientation), nan where the state is not ``LABELLED``; ``states`` ``[levels, 4]`` int8.
    Both are None for a film without labels. ``group`` is the patient or case: films of one group never
    stand on two sides of a split. ``spacing_mm`` is the size of a pixel, None when unknown. ``view`` is what
    the source says, None leaves it to the schema. ``slips`` ``[levels]`` int8 are indices of ``SLIP_CLASSES``,
    ``UNKNOWN`` where nobody told, of each level's vertebra on the one below; None for a film without any.
    ``image_class`` is a place among the names of a config's classes, or ``UNKNOWN``.
    Remarks of a reader go to ``notes``.

    What is not complete stands beside the corners, in the same frame: ``centres_xy_image`` ``[levels, 2]`` float32
    of vertebrae whose centre alone is marked, nan elsewhere; ``unnamed_xy_image`` ``[n, 4, 2]`` float32 in the
    order TL, TR, BL, BR of vertebrae whose names nobody knows, from head to foot. None where there are none.
    """

    id: str
    image_path: Path
    group: str
    points_xy_image: np.ndarray | None = None
    states: np.ndarray | None = None
    spacing_mm: float | None = None
    anterior_side: Side | None = None  # lateral films only
    view: View | None = None
    slips: np.ndarray | None = None
    image_class: int = UNKNOWN
    centres_xy_image: np.ndarray | None = None
    unnamed_xy_image: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_corners(self) -> bool:
        """Whether a corner is labelled by its name."""
        return self.states is not None and bool((self.states == State.LABELLED).any())

    @property
    def is_partial(self) -> bool:
        """Whether vertebrae are marked by their centre alone, or without their name."""
        return self.centres_xy_image is not None or self.unnamed_xy_image is not None


@dataclass(frozen=True)
class LabelledFilm:
    """A film's corners without its pixels: what every writer of a format takes.

    ``file`` is the film's path relative to the folder of the films, with forward slashes; ``size`` its height
    and width as displayed. ``points_xy_image`` and ``states`` as in ``Record``, over the levels of ``schema``;
    ``scores`` ``[levels, 4]`` in 0..1 for predictions.
    """

    file: str
    size: tuple[int, int]
    schema: Schema
    points_xy_image: np.ndarray
    states: np.ndarray
    group: str
    spacing_mm: float | None = None
    scores: np.ndarray | None = None

    def extras(self) -> dict[str, str | float]:
        """What JSON formats say beside the corners, where it is known: ``patient`` and ``spacing_mm``."""
        patient: dict[str, str | float] = {} if self.group == self.file else {"patient": self.group}
        return patient if self.spacing_mm is None else patient | {"spacing_mm": float(self.spacing_mm)}

    def labelled(self) -> list[tuple[str, str, float, float]]:
        """(level, corner, x, y) of every labelled corner, from head to foot."""
        found = np.argwhere(self.states == State.LABELLED)
        return [(self.schema.levels[i], CORNERS[j], *map(float, self.points_xy_image[i, j])) for i, j in found]


def label_arrays(schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Empty labels of a schema: points ``[levels, 4, 2]`` of nan, states UNLABELLED or NONEXISTENT."""
    points = np.full((schema.num_levels, len(CORNERS), 2), np.nan, dtype=np.float32)
    states = np.where(schema.exists, State.UNLABELLED, State.NONEXISTENT).astype(np.int8)
    return points, states


def take_levels(record: Record, old: Schema, new: Schema) -> Record:
    """The record with labels of schema ``new``, whose levels ``old`` has too."""
    if old == new:
        return record
    levels = [old.levels.index(level) for level in new.levels]
    slips = None if record.slips is None else record.slips[levels]
    centres = None if record.centres_xy_image is None else record.centres_xy_image[levels]
    record = replace(record, slips=slips, centres_xy_image=centres)
    if record.points_xy_image is None or record.states is None:
        return record
    states = np.where(new.exists, record.states[levels], State.NONEXISTENT).astype(np.int8)
    points = np.where((states == State.LABELLED)[..., None], record.points_xy_image[levels], np.nan)
    return replace(record, points_xy_image=points.astype(np.float32), states=states)


def unknown_slips(schema: Schema) -> np.ndarray:
    """``[levels]`` int8: nobody told."""
    return np.full(schema.num_levels, UNKNOWN, dtype=np.int8)


def mask_slips(slips: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Slips ``[levels]``, UNKNOWN where the film (``states`` ``[levels, 4]``) does not show the step they tell of.

    The step is seen between a vertebra's inferior corners and the superior ones of the next vertebra that exists.
    """
    outside = states == State.OUTSIDE
    hidden = outside[:, 2:].any(axis=1)
    existing = np.flatnonzero((states != State.NONEXISTENT).any(axis=1))
    hidden[existing[:-1]] |= outside[existing[1:], :2].any(axis=1)
    return np.where(hidden, UNKNOWN, slips).astype(np.int8)


def mark_outside(
    points: np.ndarray, states: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels with every LABELLED corner that lies off the film (size = height, width) turned OUTSIDE.

    Returns new points (nan there), new states, and how many corners were changed.
    """
    height, width = size
    x, y = points[..., 0], points[..., 1]
    with np.errstate(invalid="ignore"):
        off = (states == State.LABELLED) & ((x < 0) | (y < 0) | (x > width) | (y > height))
    points, states = points.copy(), states.copy()
    points[off] = np.nan
    states[off] = State.OUTSIDE
    return points, states, int(off.sum())
