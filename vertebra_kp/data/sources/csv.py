"""One's own labelled films: a folder with the films and a table ``labels.csv``, one row per corner.

::

    file,patient,spacing_mm,level,corner,x,y,state
    a.png,P7,0.143,L1,TL,312.5,108.25,labelled
    a.png,P7,0.143,S1,TR,,,outside

``file`` is relative to the folder and stays inside it. ``patient`` and ``spacing_mm`` (the size of a pixel) may
be empty; all rows of a film agree on them. ``x,y`` are continuous coordinates of the film as displayed (the centre
of the first pixel is 0.5,0.5), filled where ``state`` is ``labelled`` and empty where it is ``outside`` (of the
film), ``nonexistent`` or ``unlabelled``.
"""

import csv
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vertebra_kp.core.anatomy import CORNERS, LEVELS, Schema, State
from vertebra_kp.core.files import plain_cell
from vertebra_kp.data.names import STATES
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading
from vertebra_kp.data.sources.files import film_inside, forward_slashes
from vertebra_kp.data.sources.folder import films_under
from vertebra_kp.data.sources.problems import SourceError, some
from vertebra_kp.data.sources.values import MAX_NUMBER, number_of

log = logging.getLogger(__name__)

LABELS = "labels.csv"
HEADER = ("file", "patient", "spacing_mm", "level", "corner", "x", "y", "state")


class _Row(NamedTuple):
    file: str
    patient: str
    spacing_mm: float | None
    corner: Corner


def read_records(root: Path, schema: Schema) -> list[Record]:
    """All films that ``labels.csv`` names; groups are patients."""
    table = root / LABELS
    if not table.is_file():
        raise SourceError(f"{root} has no {LABELS}; data.root of csv is the folder with films and {LABELS}")
    films: dict[str, list[_Row]] = {}
    places: dict[str, str] = {}  # of films, by their names in the table
    seen: dict[tuple[str, str, str], int] = {}
    reading = Reading()
    for line, cells in _read_cells(table):
        with reading.at(f"line {line}"):
            row = _parse(cells)
            if row.file not in places:
                places[row.file] = film_inside(root, row.file).relative_to(root).as_posix()
            row = row._replace(file=places[row.file])
            first = films.get(row.file, [row])[0]
            _check_row(row, first, schema)
            level, name, *_ = row.corner
            if (first_line := seen.setdefault((row.file, level, name), line)) != line:
                raise ValueError(f"{level} {name} of {row.file} stands in line {first_line} already")
            films.setdefault(row.file, []).append(row)
    for file, rows in films.items():
        first = rows[0]
        film = Record(file, root / file, first.patient or file, spacing_mm=first.spacing_mm)
        reading.add(film, Labels(schema, [row.corner for row in rows]))
    empty = f"{table} has no rows; add one row per corner: {','.join(HEADER)}"
    records = reading.finish(table, "correct these lines", empty=empty)
    films_there = {path.relative_to(root).as_posix() for path in films_under(root)}
    if forgotten := sorted(films_there - films.keys()):
        log.warning("%s: %d films have no row and are left out: %s; label them", table, *some(forgotten))
    return records


def _read_cells(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not blank, after the header was checked."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = tuple(cell.strip() for cell in next(reader, []))
            if header != HEADER:
                raise SourceError(f"{table} must begin with {','.join(HEADER)}, got {','.join(header)!r}")
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, [plain_cell(cell.strip()) for cell in cells]
    except (UnicodeDecodeError, csv.Error) as error:
        what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "a CSV table"
        raise SourceError(f"{table} is not {what} ({error}); save it as CSV UTF-8") from error


def _parse(cells: list[str]) -> _Row:
    """A row whose cells are of the right kind; ValueError lists what is wrong with it."""
    if len(cells) != len(HEADER):
        raise ValueError(f"{len(cells)} columns, wanted {len(HEADER)} ({','.join(HEADER)})")
    file, patient, spacing, level, corner, x, y, state = cells
    faults = []
    if not file:
        faults.append("file is empty")
    if level not in LEVELS:
        faults.append(f"level must be one of {LEVELS[0]}..{LEVELS[-1]}, got {level!r}")
    if corner not in CORNERS:
        faults.append(f"corner must be one of {', '.join(CORNERS)}, got {corner!r}")
    if state not in STATES:
        faults.append(f"state must be one of {', '.join(STATES)}, got {state!r}")
    spacing_mm = _number(spacing) if spacing else None
    if spacing_mm is not None and not spacing_mm > 0:
        faults.append(f"spacing_mm must be a number above 0, up to {MAX_NUMBER:g}, or empty, got {spacing!r}")
    xy = _number(x), _number(y)
    if state == "labelled" and any(map(math.isnan, xy)):
        faults.append(f"x,y of a labelled corner must be numbers up to {MAX_NUMBER:g}, got {x!r},{y!r}")
    if state in STATES and state != "labelled" and (x or y):
        faults.append(f"x,y must be empty where state is {state}, got {x!r},{y!r}")
    if faults:
        raise ValueError("; ".join(faults))
    return _Row(forward_slashes(file), patient, spacing_mm, Corner(level, corner, *xy, STATES[state]))


def _number(cell: str) -> float:
    """A number, nan for what is none or is beyond ``MAX_NUMBER``."""
    try:
        return number_of(float(cell))
    except ValueError:
        return math.nan


def _check_row(row: _Row, first: _Row, schema: Schema) -> None:
    """A row against the first one of its film, and against the corners that the schema has."""
    if (row.patient, row.spacing_mm) != (first.patient, first.spacing_mm):
        raise ValueError(
            f"patient and spacing_mm of {row.file} are {row.patient!r}, {row.spacing_mm} here but "
            f"{first.patient!r}, {first.spacing_mm} above; make them equal"
        )
    level, name, _, _, state = row.corner
    exists = level not in schema.levels or schema.exists[schema.levels.index(level), CORNERS.index(name)]
    if state in (State.LABELLED, State.OUTSIDE) and not exists:
        raise ValueError(f"{level} has no {name} in {schema.name}; its state must be nonexistent")
