"""Phantom films as files: PNG, the project's ``labels.csv``, and the generator's truth."""

from pathlib import Path

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import write_image, write_json
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
        write_image(film.image, folder / file)
        written.append(LabelledFilm(file, size, schema, film.points_xy_image, film.states, name, film.spacing_mm))
        truth[file] = film.truth
    labels.write(written, folder)
    write_json(truth, folder / TRUTH)
    return sum(entry["anterior_side"] == "right" for entry in truth.values())
