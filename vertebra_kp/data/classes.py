"""Classes of images from a table of one's own: columns ``film`` and ``class``, one row per image."""

import csv
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.data.record import Record

log = logging.getLogger(__name__)

COLUMNS = {"film", "class"}


def label_classes(records: Sequence[Record], path: Path, names: Sequence[str]) -> list[Record]:
    """The records with the classes of a table, as places in ``names``; images that it leaves out keep theirs.

    An image is named by its id, its file name, or that without its ending. Raises UserError for a table that
    cannot be read, a class that is not among ``names``, an image that has two classes or whose name fits several,
    and where the table names no image at all.
    """
    places = defaultdict(set)
    for place, record in enumerate(records):
        for name in (record.id, record.image_path.name, record.image_path.stem):
            places[_plain(name)].add(place)
    ids = {_plain(record.id): place for place, record in enumerate(records)}
    labelled, unknown = list(records), []
    class_of: dict[int, str] = {}
    for line, film, name in _rows(path):
        if name not in names:
            raise UserError(f"{path}, line {line}: there is no class {name}, only {', '.join(names)}")
        found = {ids[film]} if film in ids else places.get(film, set())
        if len(found) > 1:
            raise UserError(f"{path}, line {line}: {len(found)} images are called {film}; write their ids")
        for place in found:
            if class_of.setdefault(place, name) != name:
                raise UserError(f"{path}, line {line}: {film} is {name} here and {class_of[place]} before")
            labelled[place] = replace(records[place], image_class=list(names).index(name))
        if not found:
            unknown.append(film)
    if not class_of:
        raise UserError(
            f"{path} names none of {len(records)} images; its column film must hold their ids or file names"
        )
    if unknown:
        log.warning("%s names %d images that are not there, the first is %s", path, len(unknown), unknown[0])
    return labelled


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """(line, film, class) of every row; UserError for a table of another kind."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := sorted(COLUMNS - set(reader.fieldnames or ())):
                raise UserError(f"{path} has no column {missing[0]}; its first line must name film and class")
            return [
                (reader.line_num, _plain(row["film"] or ""), (row["class"] or "").strip())
                for row in reader
                if any(row.values())
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a CSV with columns film and class") from error


def _plain(name: str) -> str:
    """Without the differences that file systems and tables make."""
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
