"""Labels and predictions as what writers take: from a source's records, or from ``predictions.json``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, Schema, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.images import film_size
from vertebra_kp.data.record import LabelledFilm, Record, label_arrays
from vertebra_kp.data.sources.files import read_json
from vertebra_kp.data.sources.json import MIN_PRESENCE


def films_of_records(records: Sequence[Record], root: Path, schema: Schema) -> list[LabelledFilm]:
    """Labelled films with names relative to ``root``. Raises FilmError for a film whose size cannot be read."""
    films = []
    for record in records:
        if record.points_xy_image is None or record.states is None:
            continue
        file = name_under(record.image_path, root)
        group = file if record.group == record.id else record.group
        size = film_size(record.image_path)
        points, states = record.points_xy_image, record.states
        films.append(LabelledFilm(file, size, schema, points, states, group, record.spacing_mm))
    return films


def films_of_predictions(path: Path, root: Path, *, min_presence: float = MIN_PRESENCE) -> list[LabelledFilm]:
    """Predicted films; vertebrae less present than ``min_presence`` are left unlabelled.

    Labels in the same layout (``data/writers/json.py``) are read too; they have no scores. Names of films are
    relative to the working folder, as ``predict`` was given them. Raises UserError when the file is not one
    that ``predict`` or ``evaluate`` wrote.
    """
    try:
        return [_predicted(film, root, min_presence) for film in read_json(path)["films"]]
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not predictions of vertebra_kp ({fault})") from error


def _predicted(film: dict[str, Any], root: Path, min_presence: float) -> LabelledFilm:
    levels = tuple(film["levels"])
    schemas = [schema for schema in SCHEMAS.values() if (schema.view, schema.levels) == (film["view"], levels)]
    if not schemas:
        raise ValueError(f"no keypoint schema has view {film['view']} and levels {', '.join(levels)}")
    schema = schemas[0]
    points, states = label_arrays(schema)
    scores = np.full(states.shape, np.nan)
    for i, level in enumerate(film["levels"].values()):
        if level["presence"] is None or level["presence"] < min_presence:
            continue
        for corner, xy in level["corners"].items():
            j = CORNERS.index(corner)
            points[i, j], states[i, j] = xy, State.LABELLED
            scores[i, j] = level["scores"][corner] if "scores" in level else np.nan
    height, width = film["size"]
    file = name_under(Path(film["file"]), root)
    scored = np.isfinite(scores[states == State.LABELLED]).all()
    return LabelledFilm(
        file=file,
        size=(height, width),
        schema=schema,
        points_xy_image=points,
        states=states,
        group=file,
        spacing_mm=film.get("spacing_mm"),
        scores=scores if scored else None,
    )


def name_under(path: Path, root: Path) -> str:
    """The film's path relative to ``root``, with forward slashes. Raises UserError when it lies elsewhere."""
    relative = Path(os.path.relpath(path.absolute(), root.expanduser().absolute()))
    if ".." in relative.parts:
        raise UserError(f"film {path} does not lie in {root}; choose as root the folder of all images")
    return relative.as_posix()
