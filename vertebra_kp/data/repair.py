"""Repair files: what is wrong with the labels of a data set, as a committed list that is applied on reading.

JSON::

    {"source": "aasce", "anatomy": "ap_whole_spine",
     "films": {"NAME.jpg": [{"action": "reorder_levels", "order": [16, 0, 1, ...], "reason": "..."},
                            {"action": "reorder_corners", "level": "L4", "order": [1, 0, 3, 2], "reason": "..."},
                            {"action": "unlabel", "level": "L5", "reason": "..."},
                            {"action": "unlabel", "reason": "the whole film"}]},
     "proposals": {"NAME.jpg": ["..."]}}

``order[i]`` is the stored place of what belongs at place i. ``proposals`` are for people: nothing is applied.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vertebra_kp.core.anatomy import SCHEMAS, UNKNOWN, Schema, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_json, write_text
from vertebra_kp.data.committed import committed_or_own
from vertebra_kp.data.record import Record

COMMITTED = Path(__file__).parent / "repair_files"


class RepairError(UserError):
    """A repair file that cannot be used; the message names file, film, fault and remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReorderLevels(_Strict):
    action: Literal["reorder_levels"] = "reorder_levels"
    order: list[int]
    reason: str


class ReorderCorners(_Strict):
    action: Literal["reorder_corners"] = "reorder_corners"
    level: str
    order: Annotated[list[int], Field(min_length=4, max_length=4)]
    reason: str


class Unlabel(_Strict):
    action: Literal["unlabel"] = "unlabel"
    level: str | None = None
    reason: str


Action = Annotated[ReorderLevels | ReorderCorners | Unlabel, Field(discriminator="action")]


class RepairFile(_Strict):
    source: str
    anatomy: Literal[tuple(SCHEMAS)]  # type: ignore[valid-type]
    films: dict[str, list[Action]] = {}
    proposals: dict[str, list[str]] = {}


def load_repair_file(name_or_path: str) -> RepairFile:
    """A committed repair file by its name (``aasce``), or any by its path. Raises UserError for what is none."""
    try:
        path = committed_or_own(COMMITTED, name_or_path)
    except FileNotFoundError as error:
        raise RepairError(f"repair_file {error}; audit the labels to make one") from error
    return read_json(path, RepairFile, remedy="audit the labels to make one")


def write_repair_file(repair: RepairFile, path: Path) -> None:
    """One film a line, so that changes are easy to review."""

    def lines(films: dict[str, list]) -> str:
        rows = (f"  {json.dumps(name)}: {json.dumps(items)}" for name, items in sorted(films.items()))
        return "{\n" + ",\n".join(rows) + "\n }"

    content = repair.model_dump(mode="json", exclude_none=True)
    write_text(
        f'{{"source": {json.dumps(repair.source)}, "anatomy": {json.dumps(repair.anatomy)},\n'
        f' "films": {lines(content["films"])},\n "proposals": {lines(content["proposals"])}}}\n',
        path,
    )


def apply_repairs(records: Sequence[Record], repair: RepairFile, schema: Schema) -> list[Record]:
    """The records with their labels repaired.

    ``records`` are those of the schema that the file was made for, in stored order. Raises RepairError that
    lists every action that does not fit. Films that the file names and the records lack are no error.
    """
    problems: list[str] = []
    repaired = []
    for record in records:
        try:
            for action in repair.films.get(record.id, []):
                record = _apply(record, action, schema)
        except ValueError as error:
            problems.append(f"{record.id}: {error}")
        repaired.append(record)
    if problems:
        raise RepairError("\n  ".join([f"{len(problems)} repairs do not fit; correct the repair file", *problems]))
    return repaired


def _apply(record: Record, action: Action, schema: Schema) -> Record:
    if record.points_xy_image is None or record.states is None:
        raise ValueError("has no labels to repair")
    points, states = record.points_xy_image.copy(), record.states.copy()
    slips = None if record.slips is None else record.slips.copy()
    if isinstance(action, ReorderLevels):
        if sorted(action.order) != list(range(schema.num_levels)):
            raise ValueError(f"order must hold 0..{schema.num_levels - 1} once each, got {action.order}")
        points, states = points[action.order], states[action.order]
        slips = None if slips is None else slips[action.order]
    elif isinstance(action, ReorderCorners):
        level = _level(action.level, schema)
        if sorted(action.order) != [0, 1, 2, 3]:
            raise ValueError(f"order must hold 0..3 once each, got {action.order}")
        points[level], states[level] = points[level][action.order], states[level][action.order]
    else:
        levels = slice(None) if action.level is None else _level(action.level, schema)
        points[levels] = np.nan
        states[levels] = np.where(schema.exists[levels], State.UNLABELLED, State.NONEXISTENT)
        if slips is not None:
            slips[levels] = UNKNOWN
    return replace(record, points_xy_image=points, states=states, slips=slips)


def _level(name: str, schema: Schema) -> int:
    if name not in schema.levels:
        raise ValueError(f"level {name!r} is none of {schema.levels[0]}..{schema.levels[-1]}")
    return schema.levels.index(name)
