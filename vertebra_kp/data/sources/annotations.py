"""What readers of annotation formats share: the file, the films that it names, corners put in their places."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as short
from typing import NamedTuple

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema, Side, State
from vertebra_kp.core.text import printable
from vertebra_kp.data.images import FilmError, film_size
from vertebra_kp.data.names import corner_name
from vertebra_kp.data.record import Record, label_arrays
from vertebra_kp.data.sources.files import film_inside, read_json
from vertebra_kp.data.sources.problems import Faults, SourceError, raise_if_any, some
from vertebra_kp.data.sources.values import MAX_NUMBER, number_of, of_kind

log = logging.getLogger(__name__)

PREDICTED = "corners are predictions that nobody has corrected"  # a record's note


class Corner(NamedTuple):
    """A corner as a file gives it: ``x, y`` in continuous image coordinates, of no meaning unless LABELLED."""

    level: str
    name: str
    x: float
    y: float
    state: State = State.LABELLED


class Labels:
    """Labels of one film while they are read: ``points`` [levels, 4, 2] and ``states`` [levels, 4].

    Corners that are not given are UNLABELLED, levels that the schema lacks are left out.
    """

    def __init__(self, schema: Schema, corners: Iterable[Corner] = ()) -> None:
        self.schema = schema
        self.points, self.states = label_arrays(schema)
        self._given: set[tuple[str, str]] = set()
        self.put(corners)

    def put(self, corners: Iterable[Corner]) -> None:
        """ValueError lists the corners that are given twice, do not exist, or lie beyond any film."""
        faults = Faults()
        for corner in corners:
            with faults.at():
                self._put(corner)
        faults.raise_all()

    def any(self) -> bool:
        """Whether a corner of the schema is labelled."""
        return bool((self.states == State.LABELLED).any())

    def _put(self, corner: Corner) -> None:
        level, name, x, y, state = corner
        if (level, name) in self._given:
            raise ValueError(f"{corner_name(level, name)} is given twice; keep one")
        self._given.add((level, name))
        if state == State.LABELLED and not (abs(x) <= MAX_NUMBER and abs(y) <= MAX_NUMBER):  # true for nan
            raise ValueError(f"{corner_name(level, name)} lies at ({x:g}, {y:g}), beyond any film")
        if level not in self.schema.levels:
            return
        place = self.schema.levels.index(level), CORNERS.index(name)
        if self.schema.exists[place]:
            self.states[place] = state
            if state == State.LABELLED:
                self.points[place] = x, y
        elif state == State.LABELLED:
            raise ValueError(
                f"{level} has no {name} in {self.schema.name}; take {corner_name(level, name)} out, or hide it"
            )


class Reading(Faults):
    """The records of a data set, what is wrong with it, and what is no label of a vertebra, while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Record] = {}
        self._places: dict[str, str] = {}  # where each film stands in the data set, by its id
        self._left_out: dict[str, list[str]] = defaultdict(list)  # the places of what is not read, by what it is

    def leave_out(self, what: str, place: str) -> None:
        """Something in a sound file that gives no corner: a warning counts and names it."""
        self._left_out[what].append(place)

    def new(self, film: Record, place: str) -> Record:
        """The film that stands at ``place``; ValueError when it stands at another one too."""
        if (first := self._places.setdefault(film.id, place)) != place:
            raise ValueError(f"film {film.id} stands in {first} already; keep one")
        return film

    def add(
        self, film: Record, labels: Labels, notes: tuple[str, ...] = (), *, anterior_side: Side = "left"
    ) -> None:
        """A film with its labels; only lateral films have an anterior side."""
        side = anterior_side if labels.schema.view == "LA" else None
        self.records[film.id] = replace(
            film, points_xy_image=labels.points, states=labels.states, anterior_side=side, notes=notes
        )

    def finish(self, where: Path, remedy: str, *, empty: str) -> list[Record]:
        """The records by id; SourceError lists the faults of ``where``, or is ``empty`` where no record is."""
        for what, places in self._left_out.items():
            named = some(list(dict.fromkeys(places)))[1]
            log.warning("%s: %d %s left out: %s", where, len(places), printable(what), named)
        raise_if_any(self.found, where, remedy)
        if not self.records:
            raise SourceError(empty)
        return [self.records[id] for id in sorted(self.records)]


def read_annotations(root: Path, name: str) -> tuple[Path, object]:
    """The file ``name`` in ``root``, or the only other JSON there, and the JSON in it.

    Raises SourceError when there is none or a choice, and when the file is damaged or a link that leads out.
    """
    path = root / name
    if not path.is_file():
        found = sorted(root.glob("*.json"))
        if len(found) != 1:
            names = short([path.name for path in found]) if found else "none"
            raise SourceError(f"data.root must be a folder with {name} or one *.json, found {names} in {root}")
        path = found[0]
    try:
        return path, read_json(path, within=root)
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error


def named_film(root: Path, file: object, extras: Mapping[str, object], folders: Sequence[str] = ("",)) -> Record:
    """The film ``file`` in ``root``, with ``patient`` and ``spacing_mm`` of ``extras``, without labels.

    It lies in the first of ``folders`` below ``root`` that has it. Its id is its path relative to ``root``;
    without a patient it is a group of its own. ValueError says what is wrong.
    """
    path = film_inside(root, of_kind(file, str, "the name of the film must be a text"), folders)
    patient, spacing_mm = extras.get("patient"), extras.get("spacing_mm")
    if isinstance(patient, bool) or not isinstance(patient, str | int | None):
        raise ValueError(f"patient of {file!r} must be a text, a whole number or missing, got {short(patient)}")
    if spacing_mm is not None and not number_of(spacing_mm) > 0:
        raise ValueError(f"spacing_mm of {file!r} must be a number above 0 or missing, got {short(spacing_mm)}")
    id = path.relative_to(root).as_posix()
    group = "" if patient is None else str(patient).strip()
    return Record(id, path, group or id, spacing_mm=None if spacing_mm is None else number_of(spacing_mm))


def shown_size(film: Record) -> tuple[int, int] | None:
    """(height, width) of a film as displayed; None where it cannot be read: whoever reads its pixels will tell."""
    try:
        return film_size(film.image_path)
    except FilmError:
        return None


def check_size(film: Record, height: object, width: object) -> None:
    """ValueError where labels are of a film of another size; what is no size is not compared."""
    stated, shown = (number_of(height), number_of(width)), shown_size(film)
    if shown is None or not min(stated) > 0 or stated == shown:  # not: for nan
        return
    raise other_size(film, stated, shown)


def other_size(film: Record, stated: tuple[float, float], shown: tuple[int, int]) -> ValueError:
    """What is wrong with labels of a film of ``stated`` (height, width), whose film has ``shown``."""
    turned = ", which EXIF turns" if stated == shown[::-1] else ""
    return ValueError(
        f"its labels are of a film of {stated[1]:g} x {stated[0]:g} pixels, {film.id} has {shown[1]} x {shown[0]}"
        f"{turned}; label this film, or take the one that was labelled"
    )


def is_clockwise(outline: np.ndarray) -> bool:
    """Whether the points ``[n, 2]`` go clockwise round a convex outline, as seen on the screen (y points down)."""
    sides = np.roll(outline, -1, axis=0) - outline
    before = np.roll(sides, 1, axis=0)
    turns = before[:, 0] * sides[:, 1] - before[:, 1] * sides[:, 0]  # y points down: clockwise is positive
    return bool((turns > 0).all())
