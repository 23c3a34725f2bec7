"""Names of levels settled by a second reading: marks of a few named vertebrae, made without labels at hand.

A committed JSON file; each reading of a film gives x, y of a vertebra's centre in pixels of the film, and from 0
to 1 how sure its reader was of the name::

    {"source": "aasce", "anatomy": "ap_whole_spine",
     "films": {"NAME.jpg": {"size": [HEIGHT, WIDTH],
                            "readings": [{"T1": [400, 75, 0.45], "L5": [410, 1955, 0.75]}, ...]}}}
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vertebra_kp.core.anatomy import SCHEMAS, UNKNOWN, Schema, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_json
from vertebra_kp.data.committed import committed_or_own
from vertebra_kp.data.record import Record, label_arrays

log = logging.getLogger(__name__)

COMMITTED = Path(__file__).parent / "level_marks"
SETTLED_FROM = 0.6  # share of the sureness of a film's marks that must support one offset
BEYOND = 3  # levels that marks may lie past the labelled ends

Coordinate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sureness = Annotated[float, Field(ge=0, le=1)]


class MarksError(UserError):
    """A file of marks that cannot be used; the message names file, fault and remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MarkedFilm(_Strict):
    size: tuple[int, int]
    readings: list[dict[str, tuple[Coordinate, Coordinate, Sureness]]]


class LevelMarks(_Strict):
    source: str
    anatomy: Literal[tuple(SCHEMAS)]  # type: ignore[valid-type]
    films: dict[str, MarkedFilm]

    @model_validator(mode="after")
    def _levels_are_those_of_the_anatomy(self) -> Self:
        levels = SCHEMAS[self.anatomy].levels
        for name, film in self.films.items():
            if unknown := {level for reading in film.readings for level in reading} - set(levels):
                raise ValueError(f"{name}: level {min(unknown)!r} is none of {levels[0]}..{levels[-1]}")
        return self


def load_marks(name_or_path: str) -> LevelMarks:
    """The committed marks of a source (``aasce``), or a file by its path. Raises UserError for what is none."""
    try:
        path = committed_or_own(COMMITTED, name_or_path)
    except FileNotFoundError as error:
        raise MarksError(f"level marks {error}; take the names of the labels") from error
    return read_json(path, LevelMarks, remedy="take the names of the labels")


def label_offset(points_xy_image: np.ndarray, film: MarkedFilm, schema: Schema) -> int | None:
    """How many levels the labels ``[levels, 4, 2]`` (nan where unknown) stand too high on the film.

    1 where L5 is marked one vertebra below the one labelled L5, -1 where it is marked on the one labelled L4. Each
    mark votes by its reader's sureness for the vertebra nearest to it, and the spine goes on at either end as it
    ended. None unless ``SETTLED_FROM`` of all votes agree.
    """
    centres = points_xy_image.mean(axis=1)
    labelled = np.flatnonzero(np.isfinite(centres).all(axis=1))
    if len(labelled) < 2:
        return None
    beyond = np.arange(1, BEYOND + 1)
    first, second, penultimate, last = centres[labelled[[0, 1, -2, -1]]]
    above = first + beyond[:, None] * (first - second)
    below = last + beyond[:, None] * (last - penultimate)
    spine = np.concatenate([above, centres[labelled], below])
    places = np.concatenate([labelled[0] - beyond, labelled, labelled[-1] + beyond])

    votes: dict[int, float] = defaultdict(float)
    for reading in film.readings:
        for level, (x, y, sureness) in reading.items():
            nearest = places[np.hypot(*(spine - (x, y)).T).argmin()]
            votes[int(nearest) - schema.levels.index(level)] += sureness
    offset = max(votes, key=votes.__getitem__, default=0)
    total = sum(votes.values())
    return offset if total > 0 and votes[offset] / total >= SETTLED_FROM else None


def label_offsets(records: Sequence[Record], marks: LevelMarks, schema: Schema) -> dict[str, int]:
    """``label_offset`` of every record that is settled, by id; ``schema`` is that of the records."""
    offsets = {}
    for record in records:
        film = marks.films.get(record.id)
        if film is None or record.points_xy_image is None or record.states is None:
            continue
        points = np.where((record.states == State.LABELLED)[..., None], record.points_xy_image, np.nan)
        if (offset := label_offset(points, film, schema)) is not None:
            offsets[record.id] = offset
    return offsets


def settle_names(records: Sequence[Record], marks: LevelMarks, schema: Schema) -> list[Record]:
    """The records with corners under their settled names; those that are not settled keep them without names.

    Raises MarksError where the marks are of another anatomy than ``schema``, that of the records: what the labels
    call T12 may be L1, so that no level can be left out before.
    """
    if marks.anatomy != schema.name:
        raise MarksError(
            f"the level marks of {marks.source} are for labels of {marks.anatomy}, got {schema.name}; "
            f"read {marks.anatomy} and take the levels of {schema.name} afterwards"
        )
    offsets = label_offsets(records, marks, schema)
    if without := [record.id for record in records if record.id not in offsets]:
        log.warning(
            "the names of levels on %d of %d films are not settled, their corners stay without names: %s ...",
            *(len(without), len(records), ", ".join(without[:3])),
        )
    return [
        rename_levels(record, offsets[record.id], schema)
        if record.id in offsets
        else without_names(record, schema)
        for record in records
    ]


def rename_levels(record: Record, offset: int, schema: Schema) -> Record:
    """The record whose labels stand ``offset`` levels too high, renamed.

    Labels that leave the schema are dropped; the levels at the other end, which nobody labelled, are UNLABELLED.
    """
    if offset == 0 or record.points_xy_image is None or record.states is None:
        return record
    no_points, no_states = label_arrays(schema)
    states = _moved(record.states, offset, no_states)
    states = np.where(schema.exists, states, State.NONEXISTENT).astype(np.int8)
    points = _moved(record.points_xy_image, offset, no_points)
    slips, centres = record.slips, record.centres_xy_image
    return replace(
        record,
        points_xy_image=np.where((states == State.LABELLED)[..., None], points, np.nan).astype(np.float32),
        states=states,
        slips=None if slips is None else _moved(slips, offset, np.full_like(slips, UNKNOWN)),
        centres_xy_image=None if centres is None else _moved(centres, offset, np.full_like(centres, np.nan)),
    )


def _moved(labels: np.ndarray, offset: int, empty: np.ndarray) -> np.ndarray:
    """``labels`` ``[levels, ...]`` by ``offset`` places towards the head, ``empty`` where none arrive."""
    places = np.arange(len(labels)) + offset
    here = (places >= 0) & (places < len(labels))
    moved = empty.copy()
    moved[here] = labels[places[here]]
    return moved


def without_names(record: Record, schema: Schema) -> Record:
    """The record with all levels unlabelled, its complete vertebrae in ``unnamed_xy_image``."""
    if record.points_xy_image is None or record.states is None:
        return record
    complete = record.points_xy_image[(record.states == State.LABELLED).all(axis=1)]
    known = [some for some in (record.unnamed_xy_image, complete) if some is not None and len(some)]
    points, states = label_arrays(schema)
    return replace(
        record,
        points_xy_image=points,
        states=states,
        slips=None,
        centres_xy_image=None,
        unnamed_xy_image=np.concatenate(known) if known else None,
    )
