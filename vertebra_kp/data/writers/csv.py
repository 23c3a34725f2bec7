"""``labels.csv``, described in ``data/sources/csv.py``: one row per corner, with its state."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vertebra_kp.core.anatomy import CORNERS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import csv_cell
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.csv import HEADER, LABELS
from vertebra_kp.data.writers.files import write_texts

DIGITS = 4  # of a pixel


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(HEADER)
    for film in films:
        if film.file != film.file.strip():
            raise UserError(f"film {film.file!r} begins or ends with a space, lost in {LABELS}; rename it")
        rows.writerows(map(csv_cell, row) for row in rows_of(film))
    write_texts(folder, [(LABELS, table.getvalue())])


def rows_of(film: LabelledFilm) -> list[tuple[str, ...]]:
    """One row per corner of the film's schema."""
    patient = "" if film.group == film.file else film.group
    spacing = "" if film.spacing_mm is None else f"{film.spacing_mm:.9g}"
    rows: list[tuple[str, ...]] = []
    for i, j in film.schema.channels:
        state = State(film.states[i, j])
        xy = film.points_xy_image[i, j]
        x, y = (f"{v:.{DIGITS}f}" for v in xy) if state == State.LABELLED else ("", "")
        rows.append((film.file, patient, spacing, film.schema.levels[i], CORNERS[j], x, y, state.name.lower()))
    return rows
