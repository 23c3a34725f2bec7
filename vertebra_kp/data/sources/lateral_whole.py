"""Lateral whole-spine radiographs with the corners of C2..S1, the open test set of a detection paper.

Films and points of github.com/amyzethorrobot/vertebrae_detection (MICCAI); no licence is stated, so research use,
with citation. Layout::

    films/                stitched films of some 1,160 x 2,750 pixels
    points.json           or any other name, if it is the only *.json in the folder

    {"22.jpg": {"size": [2745, 1160], "points": {"C2BB": [464.83, 454.69], "L5TF": [421.5, 2204.1], ...}}}

A point is named by its level, T or B (superior or inferior endplate) and B or F (back or front); the front is at
the right of the image. C2 has an inferior endplate only, S1 a superior one. Coordinates are taken as continuous.
``size`` (height, width) must be the film's: points of a film that was resized would lie elsewhere. Points that are
missing are unlabelled; films without a point of the schema's levels are skipped.
"""

import re
from pathlib import Path
from reprlib import repr as short

from vertebra_kp.core.anatomy import LEVELS, SCHEMAS, Schema, Side
from vertebra_kp.data.images import film_size
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading
from vertebra_kp.data.sources.marks import REMEDY, read_entries, side_corner, xy_of
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import of_kind

MARKS = "points.json"
HELD = SCHEMAS["la_whole_spine"].levels
ANTERIOR: Side = "right"

_POINT = re.compile(r"^([CTLS]\d{1,2})([TB])([BF])$")


def read_records(root: Path, schema: Schema) -> list[Record]:
    if schema.view != "LA" or not set(schema.levels) <= set(HELD):
        raise SourceError(f"lateral_whole holds {HELD[0]}..{HELD[-1]} of lateral films, got anatomy {schema.name}")
    reading = Reading()
    for film, entry in read_entries(root, MARKS, reading):
        with reading.at(film.image_path.name):
            labels = Labels(schema, _read_points(entry.get("points")))
            _check_size(film.image_path, entry.get("size"))
            if labels.any():
                reading.add(film, labels, anterior_side=ANTERIOR)
    return reading.finish(root, REMEDY, empty=f"{root} holds no point of {schema.name}; check data.anatomy")


def _read_points(points: object) -> list[Corner]:
    """All corners that are given; ValueError lists what is wrong."""
    corners, faults = [], Faults()
    for name, position in of_kind(points, dict, "points must be an object").items():
        with faults.at(name):
            point = _POINT.match(name)
            if point is None or point[1] not in LEVELS:
                raise ValueError("no such point; write level, T or B, B or F, like L5TF")
            corner = side_corner(superior=point[2] == "T", anterior=point[3] == "F", anterior_side=ANTERIOR)
            corners.append(Corner(point[1], corner, *xy_of(position, "the point")))
    faults.raise_all()
    return corners


def _check_size(path: Path, size: object) -> None:
    found = film_size(path)
    if size != list(found):
        raise ValueError(
            f"size must be the film's height and width, {list(found)}, got {short(size)}; resize neither"
        )
