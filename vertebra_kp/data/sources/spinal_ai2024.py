"""Spinal-AI2024: generated whole-spine AP radiographs whose vertebrae have corners and no names.

CurvNet, Pattern Recognition (2026), arXiv:2411.12604; the authors publish 20,000 images of 512 x 512 for research
and state no licence: cite the paper. Layout::

    films/016001.jpg
    quads.json            or any other name, if it is the only *.json in the folder

    {"016001.jpg": {"quads": [[250, 49, 267, 49, 249, 61, 267, 61], ...], "cobb": [0.0, 4.09, 12.45]}}

A quad holds x, y of a vertebra's TL, TR, BL and BR in pixel indices, from head to foot. Nobody can name them: the
generator does not count, 14 to 20 vertebrae are labelled, the lowest of them L5 in most images. So corners go to
``Record.unnamed_xy_image``, and those of the schema, any frontal one, are unlabelled. ``cobb`` is not read.

In about one image of nine a vertebra was skipped or labelled twice. Such images are left out, and a message
counts them: those in which a step from one centre to the next is more than ``MAX_STEP`` times the step before or
after it, and those with fewer than three vertebrae, or with vertebrae that do not come from head to foot.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Labels, Reading
from vertebra_kp.data.sources.marks import REMEDY, read_entries
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import numbers_of, of_kind

log = logging.getLogger(__name__)

MARKS = "quads.json"
# Steps of images without a fault differ by up to 1.4, 1.1 in most; a second group of images begins at 1.6.
MAX_STEP = 1.5


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Images with regular vertebrae; each is a group of its own."""
    if schema.view != "AP":
        raise SourceError(f"spinal_ai2024 holds frontal films, got anatomy {schema.name}; take ap_whole_spine")
    reading, irregular = Reading(), 0
    for film, entry in read_entries(root, MARKS, reading):
        with reading.at(film.image_path.name):
            vertebrae = _read_quads(entry.get("quads"))
            if is_regular(vertebrae):
                reading.add(replace(film, unnamed_xy_image=vertebrae), Labels(schema))
            else:
                irregular += 1
    records = reading.finish(root, REMEDY, empty=f"{root} holds no film with regular vertebrae; check {MARKS}")
    if irregular:
        log.info("%s: %d films with irregular vertebrae are left out", root, irregular)
    return records


def is_regular(vertebrae: np.ndarray) -> bool:
    """Whether corners ``[n, 4, 2]`` are those of neighbours from head to foot, none skipped and none twice."""
    if len(vertebrae) < 3:
        return False
    steps = np.diff(vertebrae.mean(axis=1), axis=0)
    if (steps[:, 1] <= 0).any():
        return False
    ratio = np.log(np.linalg.norm(steps, axis=1))
    return bool((np.abs(np.diff(ratio)) <= np.log(MAX_STEP)).all())


def _read_quads(quads: object) -> np.ndarray:
    """``[n, 4, 2]`` float32, continuous coordinates; ValueError lists what is wrong."""
    rows, faults = [], Faults()
    for number, quad in enumerate(of_kind(quads, list, "quads must be a list")):
        with faults.at(f"quads[{number}]"):
            rows.append(numbers_of(quad, 8, "must be x, y of TL, TR, BL and BR in pixel indices"))
    faults.raise_all()
    return points_from_indices(np.array(rows, dtype=np.float32).reshape(-1, 4, 2))
