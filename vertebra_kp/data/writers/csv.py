"""``labels.csv``, described in ``data/sources/csv.py``: the only format that says every state."""

import csv
from collections.abc import Sequence
from pathlib import Path

from vertebra_kp.anatomy import CORNERS, State
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.csv import HEADER, LABELS

DIGITS = 4  # of a pixel


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    """``labels.csv`` for films that stand, or will stand, in ``folder``."""
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((HEADER, *(row for film in films for row in rows_of(film))))


def rows_of(film: LabelledFilm) -> list[tuple[str, ...]]:
    """One row per corner of the film's schema."""
    patient = "" if film.group == film.file else film.group
    spacing = "" if film.spacing_mm is None else f"{film.spacing_mm:.9g}"
    rows = []
    for i, j in film.schema.channels:
        state = State(film.states[i, j])
        xy = film.points_xy_image[i, j]
        x, y = (f"{v:.{DIGITS}f}" for v in xy) if state == State.LABELLED else ("", "")
        rows.append((film.file, patient, spacing, film.schema.levels[i], CORNERS[j], x, y, state.name.lower()))
    return rows
