"""BUU-LSPINE: AP and lateral films of the lumbar spine with the ends of every endplate.

Klinwichit et al., "BUU-LSPINE: A Thai Open Lumbar Spine Dataset for Spondylolisthesis Detection",
Applied Sciences 13 (2023). Layout::

    AP/NNNN-S-AGEYv.jpg, .csv      S is M or F, for example 0001-F-037Y0
    LA/NNNN-S-AGEYv.jpg, .csv      for example 0001-F-037Y1

A CSV has no header; a row ``x1,y1,x2,y2[,label]`` is one endplate, from head to foot: L1 superior, L1
inferior, ..., L5 inferior (10 rows), on lateral films S1 superior too (11 rows). Point 1 is at the left
of the image, which on lateral films is anterior. The publication does not say where a pixel's centre
is; coordinates are read as pixel indices, the first pixel (0, 0).

The label is 0 for a normal endplate, 1 / 2 for a left / right laterolisthesis, 3 / 4 for an antero- /
retrolisthesis (``anatomy.SLIP_CLASSES``). Which row of a level carries it is not documented, so it is taken as
one of the level: the slip of that vertebra on the one below, told by its superior row, its inferior row or both.
What S1's row says is checked and dropped, as S1 does not slip. Without the column slips are unknown. Other readers
of the data set speak of 0 / 1 only. A lateral film cannot show a laterolisthesis nor an AP film an antero- or
retrolisthesis: the slips of a film that says so are unknown too. (On an AP film of 0 / 1, 1 would pass for left.)
"""

import csv
import logging
import re
from pathlib import Path
from reprlib import repr as short

import numpy as np

from vertebra_kp.core.anatomy import SCHEMAS, SLIP_CLASSES, SLIPS_SEEN, UNKNOWN, Schema, State, View
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.record import Record, unknown_slips
from vertebra_kp.data.sources.annotations import Labels, Reading
from vertebra_kp.data.sources.files import read_text
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import is_pixel

log = logging.getLogger(__name__)

# levels that the CSV of a view holds, and so its rows: two a level, one for S1
VIEW_LEVELS = {"AP": SCHEMAS["ap_lumbar"].levels, "LA": SCHEMAS["la_lumbar"].levels}
SUPERIOR_ONLY = "S1"
ROW_COLUMNS = (4, 5)

_NAME = re.compile(r"^(\d+)-[MF]-\d+Y\d$")


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Films of the schema's view, ids are names without suffix, groups are patient numbers.

    A film without labels is an error.
    """
    folder = root / schema.view
    if not folder.is_dir():
        raise SourceError(
            f"{root} has no folder {schema.view}; data.root of buu_lspine is the folder with AP/ and LA/"
        )
    reading, strange = Reading(), list[str]()
    for film in sorted(folder.iterdir()):
        name = _NAME.match(film.stem)
        if film.suffix.lower() != ".jpg" or not name:
            continue
        with reading.at(film.name):
            ends, labels = _read_endplates(film.with_suffix(".csv"), schema.view)
            slip_of = _label_of_levels(labels, schema.view, film.with_suffix(".csv").name)
            notes: tuple[str, ...] = ()
            if impossible := sorted(set(slip_of.values()) - {UNKNOWN, *SLIPS_SEEN[schema.view]}):
                told = ", ".join(f"{label} ({SLIP_CLASSES[label]})" for label in impossible)
                notes, slip_of = (f"slips are unknown: no {schema.view} film shows label {told}",), {}
                strange.append(f"{film.stem} {notes[0]}")
            slips = unknown_slips(schema)
            for level in slip_of.keys() & set(schema.levels):
                slips[schema.levels.index(level)] = slip_of[level]
            record = Record(film.stem, film, name[1], view=schema.view, slips=slips)
            reading.add(record, _as_corners(ends, schema), notes)
    if strange:
        log.warning("%s: %d films like %s", folder, len(strange), strange[0])
    remedy = "restore these labels from the data set, or take the films out"
    empty = f"{folder} holds no film named like 0001-F-037Y0.jpg; unpack the data set there"
    return reading.finish(folder, remedy, empty=empty)


def endplate_rows(view: str) -> list[tuple[str, int]]:
    """(level, index of its left corner) of every row of a CSV, in file order: 0 is TL, 2 is BL."""
    rows = [(level, left) for level in VIEW_LEVELS[view] for left in (0, 2)]
    return [(level, left) for level, left in rows if (level, left) != (SUPERIOR_ONLY, 2)]


def _as_corners(endplates: np.ndarray, schema: Schema) -> Labels:
    labels = Labels(schema)
    for (level, left), ends in zip(endplate_rows(schema.view), endplates, strict=True):
        if level in schema.levels:
            corners = schema.levels.index(level), slice(left, left + 2)
            labels.points[corners] = ends
            labels.states[corners] = State.LABELLED
    return labels


def _label_of_levels(labels: list[int], view: View, file: str) -> dict[str, int]:
    """The slip label of each level but S1: that of its rows; ValueError names rows that tell different slips."""
    found: dict[str, int] = {}
    for number, ((level, _), label) in enumerate(zip(endplate_rows(view), labels, strict=True), start=1):
        if level == SUPERIOR_ONLY:
            continue
        other = found.get(level, UNKNOWN)
        if min(label, other) > 0 and label != other:
            raise ValueError(
                f"{file} rows {number - 1} and {number}: {level} has label {other} ({SLIP_CLASSES[other]}) and "
                f"{label} ({SLIP_CLASSES[label]})"
            )
        found[level] = max(label, other)
    return found


def _read_label(cell: str) -> int:
    try:
        value = float(cell)
    except ValueError:
        value = UNKNOWN
    if value not in range(len(SLIP_CLASSES)):
        known = ", ".join(f"{number} {name}" for number, name in enumerate(SLIP_CLASSES))
        raise ValueError(f"slip label is {cell.strip()!r}, wanted one of {known}")
    return int(value)


def _read_endplates(path: Path, view: str) -> tuple[np.ndarray, list[int]]:
    """Ends ``[rows, 2, 2]`` of a film's endplates in continuous coordinates, and their labels ``[rows]``.

    Labels are of ``SLIP_CLASSES`` or UNKNOWN; ValueError says what is wrong.
    """
    if not path.is_file():
        raise ValueError(f"film without labels, {path.name} is missing")
    try:
        rows = [row for row in csv.reader(read_text(path).splitlines()) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{path.name} is not a CSV table ({error})") from error
    wanted = len(endplate_rows(view))
    if len(rows) != wanted:
        raise ValueError(f"{path.name} has {len(rows)} rows, wanted {wanted} (one an endplate)")
    ends, labels, faults = [], [], Faults()
    for number, row in enumerate(rows, start=1):
        with faults.at(f"{path.name} row {number}"):
            if len(row) not in ROW_COLUMNS:
                raise ValueError(f"has {len(row)} columns, wanted x1,y1,x2,y2[,label]")
            ends.append([float(cell) for cell in row[:4]])
            if not is_pixel(np.reshape(ends[-1], (2, 2))).all():
                raise ValueError(f"holds NaN, or a number beyond any film: {short(','.join(row[:4]))}")
            cell = row[4] if len(row) > 4 else ""
            labels.append(_read_label(cell) if cell.strip() else UNKNOWN)
    faults.raise_all()
    return points_from_indices(np.reshape(ends, (wanted, 2, 2))), labels
