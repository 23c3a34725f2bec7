"""Labels in the layout of ``predictions.json``, as ``vertebra-kp convert`` writes them.

::

    labels.json           or any other name, if it is the only *.json in the folder
    films                 anywhere below the folder

    {"films": [{"file": "a.png", "size": [1200, 500], "view": "LA", "patient": "P7", "spacing_mm": 0.143,
      "levels": {"L1": {"presence": 1.0, "corners": {"TL": [201.5, 97.25], "TR": [260.0, 99.5]},
                 "states": {"TL": "labelled", "TR": "labelled", "BL": "outside", "BR": "unlabelled"}}}}]}

``file`` is relative to the folder, corners are continuous coordinates of the film as displayed, ``states`` are
those of ``labels.csv``. ``patient``, ``spacing_mm`` (the size of a pixel) and ``states`` may be missing: corners
without a state are labelled where they have a position. Films of which nothing is known are skipped.

A ``predictions.json`` is read too, if its films are named relative to the folder: levels with a presence below
0.5 are left unlabelled, and every record says in its notes that its corners are predictions. ``size``, if it is
there, must be the film's. ``view``, the presence of labels and covariances are not read.
"""

import math
from pathlib import Path
from reprlib import repr as short

from vertebra_kp.core.anatomy import CORNERS, Schema, State
from vertebra_kp.data.names import STATES, corner_name, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import (
    PREDICTED,
    Corner,
    Labels,
    Reading,
    check_size,
    named_film,
    read_annotations,
)
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import MAX_NUMBER, number_of, numbers_of, of_kind

LABELS = "labels.json"
MIN_PRESENCE = 0.5  # of a predicted level


def read_records(root: Path, schema: Schema) -> list[Record]:
    path, content = read_annotations(root, LABELS)
    entries = content.get("films") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise SourceError(f"{path} must be an object with films, a list; convert the labels to json")
    reading = Reading()
    for index, value in enumerate(entries):
        place = f"films[{index}]"
        with reading.at(place):
            entry = of_kind(value, dict, "a film must be an object")
            film = reading.new(named_film(root, entry.get("file"), entry), place)
            corners, predicted = _read_levels(entry.get("levels"))
            if corners:
                check_size(film, *_size(entry.get("size")))
                reading.add(film, Labels(schema, corners), (PREDICTED,) if predicted else ())
    empty = f"{path} has no labelled corner; label films and write it again"
    return reading.finish(path, "correct these films", empty=empty)


def _size(value: object) -> tuple[object, object]:
    """Height and width as they stand in the file, None where they do not."""
    return (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else (None, None)


def _read_levels(levels: object) -> tuple[list[Corner], bool]:
    """The corners of a film of which something is known, and whether they are predictions."""
    corners, predicted, faults = list[Corner](), False, Faults()
    for name, value in of_kind(levels, dict, "levels must be an object").items():
        with faults.at(name):
            level, content = parse_level(name), of_kind(value, dict, "must be an object")
            scored = "scores" in content  # labels are not
            predicted |= scored
            if not scored or _is_present(content.get("presence")):
                corners += _read_corners(level, content)
    faults.raise_all()
    return corners, predicted


def _is_present(presence: object) -> bool:
    number = 0.0 if presence is None else number_of(presence)
    if math.isnan(number):
        raise ValueError(f"presence must be a number or null, got {short(presence)}")
    return number >= MIN_PRESENCE


def _read_corners(level: str, content: dict[str, object]) -> list[Corner]:
    positions = _by_corner("corners", content.get("corners"))
    states = _by_corner("states", content.get("states", {}))
    corners = []
    for name in CORNERS:
        given = states.get(name, "labelled" if name in positions else "unlabelled")
        state = STATES.get(given) if isinstance(given, str) else None
        if state is None:
            raise ValueError(f"state of {name} must be one of {', '.join(STATES)}, got {short(given)}")
        if (state == State.LABELLED) != (name in positions):
            raise ValueError(f"{name} is {given}, which does not fit position {short(positions.get(name))}")
        if state == State.LABELLED:
            wanted = f"{corner_name(level, name)} must be [x, y], pixels up to {MAX_NUMBER:g}"
            x, y = numbers_of(positions[name], 2, wanted)
            corners.append(Corner(level, name, x, y))
        elif state != State.UNLABELLED:
            corners.append(Corner(level, name, math.nan, math.nan, state))
    return corners


def _by_corner(field: str, value: object) -> dict[str, object]:
    wanted = f"{field} must be an object with {', '.join(CORNERS)}"
    if not set(found := of_kind(value, dict, wanted)) <= set(CORNERS):
        raise ValueError(f"{wanted}, got {short(value)}")
    return found
