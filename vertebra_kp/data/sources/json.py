"""Labels in the layout of ``predictions.json``, as ``vertebra-kp convert`` writes them.

::

    labels.json           or any other name, if it is the only *.json in the folder
    films                 anywhere below the folder

    {"films": [{"file": "a.png", "size": [1200, 500], "view": "LA", "patient": "P7", "spacing_mm": 0.143,
      "levels": {"L1": {"presence": 1.0, "corners": {"TL": [201.5, 97.25], "TR": [260.0, 99.5]},
                 "states": {"TL": "labelled", "TR": "labelled", "BL": "outside", "BR": "unlabelled"}}}}]}

``file`` is relative to the folder, corners are continuous coordinates of the film as displayed, ``states`` are
those of ``labels.csv``. ``patient``, ``spacing_mm`` (the size of a pixel) and ``states`` may be missing: a film
without a patient is a group of its own, corners without a state are labelled where they have a position. Corners
that are not given are unlabelled, levels that the keypoint schema lacks are left out, films of which nothing is
known are skipped. Lateral films have their anterior side at the left of the image.

A ``predictions.json`` is read too, if its films are named relative to the folder: levels with a presence below
0.5 are left unlabelled, and every record says in its notes that its corners are predictions. ``size``, ``view``,
the presence of labels and covariances are not read.
"""

import math
from pathlib import Path
from reprlib import repr as short
from typing import Any

from vertebra_kp.core.anatomy import CORNERS, Schema, State
from vertebra_kp.data.names import STATES, corner_name, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import (
    MAX_NUMBER,
    PREDICTED,
    Corner,
    annotation_file,
    film_record,
    json_number,
    labels_of,
    named_film,
    read_annotations,
)
from vertebra_kp.data.sources.problems import SourceError, raise_if_any

LABELS = "labels.json"
MIN_PRESENCE = 0.5  # of a predicted level


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Films that have labels, ids are their paths relative to ``root``, groups are patients.

    Raises SourceError for a missing or unreadable JSON, and one that lists every film that is wrong.
    """
    root = root.expanduser()
    path = annotation_file(root, LABELS)
    content = read_annotations(root, path)
    entries = content.get("films") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise SourceError(f"{path} must be an object with films, a list; convert the labels to json")
    records: dict[str, Record | None] = {}
    problems = []
    for index, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"a film must be an object, got {short(entry)}")
            film = named_film(root, entry.get("file"), entry)
            if film.id in records:
                raise ValueError(f"film {film.id} stands above already; keep one")
            records[film.id] = None
            corners, predicted = _read_levels(entry.get("levels"))
            if corners:
                notes = (PREDICTED,) if predicted else ()
                records[film.id] = film_record(film, labels_of(corners, schema), notes)
        except ValueError as error:
            problems.append(f"films[{index}]: {error}")
    raise_if_any(problems, path, "correct these films")
    labelled = [record for _, record in sorted(records.items()) if record is not None]
    if not labelled:
        raise SourceError(f"{path} has no labelled corner; label films and write it again")
    return labelled


def _read_levels(levels: Any) -> tuple[list[Corner], bool]:
    """The corners of a film of which something is known, and whether they are predictions."""
    if not isinstance(levels, dict):
        raise ValueError(f"levels must be an object, got {short(levels)}")
    corners, faults = [], []
    predicted = False
    for name, content in levels.items():
        try:
            level = parse_level(name)
            if not isinstance(content, dict):
                raise ValueError(f"must be an object, got {short(content)}")
            scored = "scores" in content  # labels are not
            predicted |= scored
            if not scored or _is_present(content.get("presence")):
                corners += _read_corners(level, content)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return corners, predicted


def _is_present(presence: Any) -> bool:
    number = 0.0 if presence is None else json_number(presence)
    if math.isnan(number):
        raise ValueError(f"presence must be a number or null, got {short(presence)}")
    return number >= MIN_PRESENCE


def _read_corners(level: str, content: dict[str, Any]) -> list[Corner]:
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
            corners.append(Corner(level, name, *_position(level, name, positions[name])))
        elif state != State.UNLABELLED:
            corners.append(Corner(level, name, math.nan, math.nan, state))
    return corners


def _by_corner(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= set(CORNERS):
        raise ValueError(f"{field} must be an object with {', '.join(CORNERS)}, got {short(value)}")
    return value


def _position(level: str, name: str, value: Any) -> tuple[float, float]:
    numbers = [json_number(number) for number in value] if isinstance(value, list) else []
    if len(numbers) != 2 or any(map(math.isnan, numbers)):
        place = corner_name(level, name)
        raise ValueError(f"{place} must be [x, y], pixels up to {MAX_NUMBER:g}, got {short(value)}")
    return numbers[0], numbers[1]
