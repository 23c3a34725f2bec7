"""COCO keypoints: ``annotations.json``, which ``sources/coco.py`` describes and pycocotools loads.

A category per level, all with the keypoints TL, TR, BL, BR, since evaluation by object keypoint similarity takes
one number of keypoints (those that a schema lacks are never labelled). An annotation per vertebra with a labelled
corner: ``v`` is 2 where labelled, else x = y = v = 0; ``bbox`` frames the pixels that hold the corners (never
empty, also for one endplate), ``area`` is its area; predictions also have ``score``, the mean over their corners.
Whether an unlabelled corner is off the film or does not exist cannot be said.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, LEVELS, State
from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.coco import ANNOTATIONS
from vertebra_kp.data.writers.files import write_texts

DIGITS = 3  # of a pixel
VISIBLE = 2
SKELETON = [[1, 2], [2, 4], [4, 3], [3, 1]]  # around the vertebra, keypoints counted from 1


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    images, annotations = [], list[dict[str, object]]()
    for image_id, film in enumerate(films, start=1):
        height, width = map(int, film.size)
        image = {"id": image_id, "file_name": film.file, "width": width, "height": height}
        images.append(image | film.extras())
        for i, level in enumerate(film.schema.levels):
            if (film.states[i] == State.LABELLED).any():
                category_id = LEVELS.index(level) + 1
                head = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id}
                annotations.append(head | _vertebra(film, i))
    levels = {level for film in films for level in film.schema.levels}
    same = {"supercategory": "vertebra", "keypoints": CORNERS, "skeleton": SKELETON}
    categories = [{"id": i, "name": level, **same} for i, level in enumerate(LEVELS, start=1) if level in levels]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_texts(folder, [(ANNOTATIONS, json.dumps(content, allow_nan=False))])


def _vertebra(film: LabelledFilm, i: int) -> dict[str, object]:
    """The annotation of the film's i-th level, without its ids."""
    labelled = film.states[i] == State.LABELLED
    indices = points_to_indices(film.points_xy_image[i].astype(float))
    left, top = indices[labelled].min(axis=0)
    width, height = np.ptp(indices[labelled], axis=0) + 1
    keypoints: list[float] = []
    for (x, y), known in zip(indices, labelled, strict=True):
        keypoints += [round(float(x), DIGITS), round(float(y), DIGITS), VISIBLE] if known else [0, 0, 0]
    score = {} if film.scores is None else {"score": round(float(film.scores[i][labelled].mean()), 4)}
    return {
        "keypoints": keypoints,
        "num_keypoints": int(labelled.sum()),
        "bbox": [round(float(value), DIGITS) for value in (left, top, width, height)],
        "area": round(float(width * height), DIGITS),
        "iscrowd": 0,
        **score,
    }
