"""What readers of marks share: one JSON with an entry for every film in ``films/``, corners by front and back."""

from collections.abc import Mapping
from pathlib import Path

from vertebra_kp.core.anatomy import Side
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Reading, named_film, read_annotations
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.sources.values import MAX_NUMBER, numbers_of, of_kind

FILMS = "films"
REMEDY = "correct these entries, or take them out"


def read_entries(root: Path, file: str, reading: Reading) -> list[tuple[Record, dict[str, object]]]:
    """Every film that ``file`` in ``root`` names and that lies in ``films/``, without labels, and its entry.

    ``file`` is an object with the films' names as keys. Films that are missing and entries that are no objects
    become faults of ``reading``; SourceError when there is no such file.
    """
    path, content = read_annotations(root, file)
    if not isinstance(content, dict):
        raise SourceError(f"{path} must be an object with an entry for every film, its name as the key")
    entries = []
    for name, entry in content.items():
        with reading.at(name):
            film = named_film(root, f"{FILMS}/{name}", {})
            entries.append((film, of_kind(entry, dict, "the entry of a film must be an object")))
    return entries


def xy_of(value: object, name: str) -> tuple[float, float]:
    """A position as it stands in a file; ValueError names what it is the position of."""
    x, y = numbers_of(value, 2, f"{name} must be [x, y], pixels up to {MAX_NUMBER:g}")
    return x, y


def side_corner(*, superior: bool, anterior: bool, anterior_side: Side) -> str:
    """The corner (TL, TR, BL or BR, by the side of the image) at the front or the back of an endplate."""
    left = anterior == (anterior_side == "left")
    return ("T" if superior else "B") + ("L" if left else "R")


def note_of(entry: Mapping[str, object]) -> tuple[str, ...]:
    """The remark of an entry as a record's notes: none where ``note`` is empty or missing."""
    note = entry.get("note")
    return (of_kind(note, str, "note must be a text"),) if note else ()
