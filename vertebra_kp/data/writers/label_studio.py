"""Label Studio: ``tasks.json``, corners as predictions to correct, and the project's ``labelling_config.xml``.

``sources/label_studio.py`` describes the tasks. To open them, with the films in the same folder:

1. start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
   LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to the folder *above* (it serves only folders below that root);
2. make a project, paste ``labelling_config.xml`` as its labelling interface (Code);
3. add the folder as source storage (Local files) without syncing it, then import ``tasks.json``.

A corner has its score as ``score``, a task the mean over its corners; both are missing where there are none.
Corners that are not labelled are left out, whatever the reason.
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, LEVELS, State
from vertebra_kp.data.names import corner_name
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.label_studio import KEYPOINT, LOCAL_FILES, TASKS
from vertebra_kp.data.writers.files import write_texts

CONFIG = "labelling_config.xml"
MODEL_VERSION = "vertebra_kp"
CONTROL, OBJECT = "corner", "image"  # what the config calls the keypoints and the film
POINT_SIZE = 0.5  # percent of the film's width, as drawn
COLOURS = {"TL": "#e6194b", "TR": "#3cb44b", "BL": "#4363d8", "BR": "#f58231"}


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    tasks = [_task(film, folder.expanduser().resolve().name) for film in films]
    names = {name for film in films for name in film.schema.channel_names}
    write_texts(folder, [(TASKS, json.dumps(tasks, allow_nan=False, indent=1)), (CONFIG, labelling_config(names))])


def labelling_config(names: set[str]) -> str:
    """The project's labelling interface: the film and one keypoint label per corner, from head to foot."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=OBJECT, value="$image", zoom="true", zoomControl="true")
    labels = ElementTree.SubElement(view, "KeyPointLabels", name=CONTROL, toName=OBJECT, maxUsages="1")
    for level, corner in product(LEVELS, CORNERS):
        if (name := corner_name(level, corner)) in names:
            ElementTree.SubElement(labels, "Label", value=name, background=COLOURS[corner])
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _task(film: LabelledFilm, folder: str) -> dict[str, object]:
    address = f"{LOCAL_FILES}?d={quote(f'{folder}/{film.file}')}"
    regions = _regions(film)
    prediction: dict[str, Any] = {"model_version": MODEL_VERSION, "result": regions}
    if scores := [region["score"] for region in regions if "score" in region]:
        prediction["score"] = round(float(np.mean(scores)), 4)
    return {"data": {OBJECT: address, "film": film.file, **film.extras()}, "predictions": [prediction]}


def _regions(film: LabelledFilm) -> list[dict[str, Any]]:
    height, width = map(int, film.size)
    regions = []
    for i, j in np.argwhere(film.states == State.LABELLED):
        name = corner_name(film.schema.levels[i], CORNERS[j])
        x, y = map(float, film.points_xy_image[i, j])
        region: dict[str, Any] = {
            "id": name.replace(".", "_"),
            "from_name": CONTROL,
            "to_name": OBJECT,
            "type": KEYPOINT,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"x": 100 * x / width, "y": 100 * y / height, "width": POINT_SIZE, KEYPOINT: [name]},
        }
        if film.scores is not None:
            region["score"] = round(float(film.scores[i, j]), 4)
        regions.append(region)
    return regions
