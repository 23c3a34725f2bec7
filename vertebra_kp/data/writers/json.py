"""Labels in the layout of ``predictions.json``: ``labels.json``, which ``sources/json.py`` describes and reads.

Presence is 1 where a corner of the level is labelled, 0 where all are outside or missing, null where nobody knows.
Scores are written where the film has them; covariances are not.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from vertebra_kp.core.anatomy import CORNERS, State, presence_target
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.json import LABELS
from vertebra_kp.data.writers.files import write_texts

DIGITS = 3  # of a pixel, as in predictions.json


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    content = {"films": [_film(film) for film in films]}
    write_texts(folder, [(LABELS, json.dumps(content, allow_nan=False, indent=1))])


def _film(film: LabelledFilm) -> dict[str, object]:
    head = {"file": film.file, "size": [int(side) for side in film.size], "view": film.schema.view}
    levels = {level: _level(film, i) for i, level in enumerate(film.schema.levels)}
    return head | film.extras() | {"levels": levels}


def _level(film: LabelledFilm, i: int) -> dict[str, object]:
    presence = float(presence_target(film.states[i]))
    existing = [j for j in range(len(CORNERS)) if film.schema.exists[i, j]]
    labelled = [j for j in existing if film.states[i, j] == State.LABELLED]
    points = film.points_xy_image[i].astype(float).round(DIGITS)
    level: dict[str, object] = {
        "presence": None if math.isnan(presence) else presence,
        "corners": {CORNERS[j]: points[j].tolist() for j in labelled},
        "states": {CORNERS[j]: State(film.states[i, j]).name.lower() for j in existing},
    }
    if film.scores is not None:
        level["scores"] = {CORNERS[j]: round(float(film.scores[i, j]), 4) for j in labelled}
    return level
