"""Corners of vertebrae in an object of one's own: by side on frontal films, by front and back on lateral ones.

::

    corners.json          or any other name, if it is the only *.json in the folder
    films/                the films that it names

    {"frontal.jpg": {"levels": {"L1": {"TL": [140.5, 69], "TR": [281.5, 70], "BL": [139, 154], "BR": [288, 152]}}}}

    {"lateral.jpg": {"anterior": "left", "note": "S1 faint",
      "levels": {"L5": {"SA": [386.5, 979], "SP": [602, 928], "IA": [404.5, 1145], "IP": [615.5, 1082]},
                 "S1": {"SA": [465.5, 1262], "SP": [644, 1135]}}}}

Coordinates are continuous in the film as displayed. A film with ``anterior``, the side of the image that the
patient's front is at, is lateral: its corners are the anterior and posterior ends of the superior and inferior
endplates. A film that is not of the schema's view is an error. Corners may be missing. ``note`` goes to the
record's notes, other keys are not read. Films without a corner of the schema's levels are skipped.
"""

from pathlib import Path
from reprlib import repr as short
from typing import get_args

from vertebra_kp.core.anatomy import CORNERS, Schema, Side
from vertebra_kp.data.names import parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading
from vertebra_kp.data.sources.marks import REMEDY, note_of, read_entries, side_corner, xy_of
from vertebra_kp.data.sources.problems import Faults
from vertebra_kp.data.sources.values import of_kind

MARKS = "corners.json"
ENDS = ("SA", "SP", "IA", "IP")


def read_records(root: Path, schema: Schema) -> list[Record]:
    reading = Reading()
    for film, entry in read_entries(root, MARKS, reading):
        with reading.at(film.image_path.name):
            side = _anterior_side(entry.get("anterior"), schema)
            labels = Labels(schema, _read_corners(entry.get("levels"), side))
            if labels.any():
                reading.add(film, labels, note_of(entry), anterior_side=side or "left")
    empty = f"{root} holds no corner of {schema.name}; check data.anatomy"
    return reading.finish(root, REMEDY, empty=empty)


def _anterior_side(value: object, schema: Schema) -> Side | None:
    """None on frontal films; ValueError where the film is not of the schema's view."""
    if schema.view == "AP":
        if value is not None:
            raise ValueError(f"has anterior {short(value)}, so it is lateral; {schema.name} is frontal")
        return None
    for side in get_args(Side):
        if value == side:
            return side
    raise ValueError(f"anterior of a lateral film must be left or right ({schema.name}), got {short(value)}")


def _read_corners(levels: object, side: Side | None) -> list[Corner]:
    """All corners that are given; with a ``side``, by front and back. ValueError lists what is wrong."""
    if side is None:
        names = {corner: corner for corner in CORNERS}
    else:
        names = {
            end: side_corner(superior=end[0] == "S", anterior=end[1] == "A", anterior_side=side) for end in ENDS
        }
    corners, faults = [], Faults()
    for name, points in of_kind(levels, dict, "levels must be an object").items():
        with faults.at(name):
            level = parse_level(name)
            for end, position in of_kind(points, dict, "must be an object").items():
                with faults.at(f"{name}.{end}"):
                    if end not in names:
                        raise ValueError(f"no such corner; write one of {', '.join(names)}")
                    corners.append(Corner(level, names[end], *xy_of(position, "the corner")))
    faults.raise_all()
    return corners
