"""Phantom films as files: PNG, the project's ``labels.csv``, and the generator's truth."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import cv2

from vertebra_kp.anatomy import CORNERS, Schema, State
from vertebra_kp.data.phantom.film import PhantomFilm, draw_film
from vertebra_kp.data.sources.csv import HEADER, LABELS

TRUTH = "truth.json"


def write_films(schema: Schema, preset: str, *, seed: int, films: int, size: tuple[int, int], folder: Path) -> int:
    """Writes films 0, 1, ... of a seed into ``folder``; returns how many have anterior at the right.

    ``labels.csv`` has one row per corner of the schema and cannot say which side is anterior;
    ``truth.json`` maps file names to the generator's parameters. Raises FileExistsError where labels are
    there already.
    """
    if (folder / LABELS).exists():
        raise FileExistsError(f"{folder / LABELS} exists; choose another folder, or delete this one first")
    folder.mkdir(parents=True, exist_ok=True)
    rows, truth = [], {}
    for index in range(films):
        film = draw_film(schema, preset, seed, index, size)
        name = f"{schema.name}_{preset}_{seed}_{index:05d}"
        if not cv2.imwrite(str(folder / f"{name}.png"), film.image):
            raise OSError(f"cannot write {folder / name}.png; check that the folder is writable")
        rows += [(f"{name}.png", name, f"{film.spacing_mm:.9g}", *row) for row in _corner_rows(schema, film)]
        truth[f"{name}.png"] = film.truth
    with open(folder / LABELS, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((HEADER, *rows))
    (folder / TRUTH).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return sum(entry["anterior_side"] == "right" for entry in truth.values())


def _corner_rows(schema: Schema, film: PhantomFilm) -> Iterator[tuple[str, ...]]:
    """Level, corner, x, y, state."""
    for i, level in enumerate(schema.levels):
        for j, corner in enumerate(CORNERS):
            state = State(int(film.states[i, j]))
            x, y = film.points_xy_image[i, j]
            xy = (f"{x:.4f}", f"{y:.4f}") if state == State.LABELLED else ("", "")
            yield level, corner, *xy, state.name.lower()
