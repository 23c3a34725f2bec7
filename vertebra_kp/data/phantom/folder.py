"""Phantom films as files: PNG, the project's ``labels.csv``, and the generator's truth."""

import json
from pathlib import Path

import cv2

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.phantom.film import draw_film
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.csv import LABELS
from vertebra_kp.data.writers import csv as labels

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
    written, truth = [], {}
    for index in range(films):
        film = draw_film(schema, preset, seed, index, size)
        name = f"{schema.name}_{preset}_{seed}_{index:05d}"
        file = f"{name}.png"
        if not cv2.imwrite(str(folder / file), film.image):
            raise OSError(f"cannot write {folder / file}; check that the folder is writable")
        written.append(LabelledFilm(file, size, schema, film.points_xy_image, film.states, name, film.spacing_mm))
        truth[file] = film.truth
    labels.write(written, folder)
    (folder / TRUTH).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return sum(entry["anterior_side"] == "right" for entry in truth.values())
