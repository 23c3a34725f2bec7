"""Labels and predictions as what writers take: from a source's records, or from ``predictions.json``."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, Schema, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.images import film_size
from vertebra_kp.data.record import LabelledFilm, Record, label_arrays
from vertebra_kp.data.sources.files import read_json
from vertebra_kp.data.sources.json import MIN_PRESENCE
from vertebra_kp.data.sources.problems import raise_if_any
from vertebra_kp.data.sources.values import MAX_NUMBER

log = logging.getLogger(__name__)


def films_of_records(records: Sequence[Record], root: Path, schema: Schema) -> list[LabelledFilm]:
    """Labelled films with names relative to ``root``; centres and vertebrae without names are left out.

    Raises FilmError for a film whose size cannot be read, UserError where there is nothing else on any film.
    """
    if partial := [record for record in records if record.is_partial]:
        log.warning("centres and unnamed vertebrae of %d films are left out: formats hold corners", len(partial))
        if not any(record.has_corners for record in records):
            raise UserError(
                f"none of {len(records)} films has a corner of {schema.name}; there is nothing to write"
            )
    films = []
    for record in records:
        if record.points_xy_image is None or record.states is None:
            continue
        if record.is_partial and not record.has_corners:
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
        content = _Predictions.model_validate(read_json(path))
        return [_predicted(film, root, min_presence) for film in content.films]
    except UserError:
        raise
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, got {short(fault['input'])}"
            for fault in error.errors()
        ]
        raise_if_any(problems, path, "not predictions of vertebra_kp; correct these entries, or predict again")
        raise  # there always is one
    except ValueError as error:
        raise UserError(f"{path}: not predictions of vertebra_kp ({error})") from error


Corner = Literal["TL", "TR", "BL", "BR"]
Share = Annotated[float, Field(ge=0, le=1)]  # these bounds refuse nan, too
Pixels = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Side = Annotated[int, Field(ge=1, le=MAX_NUMBER)]


class _Level(BaseModel):
    presence: Share | None
    corners: dict[Corner, tuple[Pixels, Pixels]]
    scores: dict[Corner, Share] | None = None


class _Film(BaseModel):
    file: Annotated[str, Field(min_length=1)]
    size: tuple[Side, Side]
    view: str
    levels: dict[str, _Level]
    spacing_mm: Annotated[float, Field(gt=0, le=MAX_NUMBER)] | None = None


class _Predictions(BaseModel):
    """What is read of a ``predictions.json``."""

    films: list[_Film]


def _predicted(film: _Film, root: Path, min_presence: float) -> LabelledFilm:
    view_and_levels = (film.view, tuple(film.levels))
    schema = next((s for s in SCHEMAS.values() if (s.view, s.levels) == view_and_levels), None)
    if schema is None:
        raise ValueError(f"no keypoint schema has view {film.view} and levels {', '.join(film.levels)}")
    points, states = label_arrays(schema)
    scores = np.full(states.shape, np.nan)
    for i, level in enumerate(film.levels.values()):
        if level.presence is None or level.presence < min_presence:
            continue
        for corner, xy in level.corners.items():
            j = CORNERS.index(corner)
            if not schema.exists[i, j]:
                raise ValueError(f"{film.file}: {schema.levels[i]} has no {corner} in {schema.name}")
            points[i, j], states[i, j] = xy, State.LABELLED
            scores[i, j] = (level.scores or {}).get(corner, np.nan)
    file = name_under(Path(film.file), root)
    scored = scores if np.isfinite(scores[states == State.LABELLED]).all() else None
    return LabelledFilm(file, film.size, schema, points, states, file, film.spacing_mm, scored)


def name_under(path: Path, root: Path) -> str:
    """The film's path relative to ``root``, with forward slashes. Raises UserError when it lies elsewhere."""
    relative = Path(os.path.relpath(path.absolute(), root.expanduser().absolute()))
    if ".." in relative.parts:
        raise UserError(f"film {path} does not lie in {root}; name the folder that holds all films")
    return relative.as_posix()
