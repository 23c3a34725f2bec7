"""Centres of vertebrae in an object of one's own: names are marked, corners are not.

::

    centres.json          or any other name, if it is the only *.json in the folder
    films/                the films that it names

    {"a.jpg": {"centres": {"T1": [277, 487], "T2": [277, 538.5]}, "note": "L5 off the film"}}

Centres are continuous coordinates of the film as displayed, and go to ``Record.centres_xy_image``; every corner is
unlabelled. ``note`` goes to the record's notes, other keys are not read. The file does not say the view: films are
of the schema's. Films without a centre of the schema's levels are skipped.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.names import parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Labels, Reading
from vertebra_kp.data.sources.marks import REMEDY, note_of, read_entries, xy_of
from vertebra_kp.data.sources.problems import Faults
from vertebra_kp.data.sources.values import of_kind

MARKS = "centres.json"


def read_records(root: Path, schema: Schema) -> list[Record]:
    reading = Reading()
    for film, entry in read_entries(root, MARKS, reading):
        with reading.at(film.image_path.name):
            centres = _read_centres(entry.get("centres"), schema)
            if np.isfinite(centres).any():
                reading.add(replace(film, centres_xy_image=centres), Labels(schema), note_of(entry))
    empty = f"{root} holds no centre of {schema.name}; check data.anatomy"
    return reading.finish(root, REMEDY, empty=empty)


def _read_centres(value: object, schema: Schema) -> np.ndarray:
    """``[levels, 2]`` float32, nan where no centre is marked."""
    centres = np.full((schema.num_levels, 2), np.nan, dtype=np.float32)
    faults, given = Faults(), set[str]()
    for name, position in of_kind(value, dict, "centres must be an object").items():
        with faults.at(name):
            level, xy = parse_level(name), xy_of(position, "the centre")
            if level in given:
                raise ValueError("is given twice; keep one")
            given.add(level)
            if level in schema.levels:
                centres[schema.levels.index(level)] = xy
    faults.raise_all()
    return centres
