"""Corners of films written in formats that other tools open, each format in its own file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.writers import coco, csv, cvat, json, label_studio, labelme, slicer

WRITERS: dict[str, Callable[[Sequence[LabelledFilm], Path], None]] = {
    "coco": coco.write,
    "csv": csv.write,
    "cvat": cvat.write,
    "json": json.write,
    "label_studio": label_studio.write,
    "labelme": labelme.write,
    "slicer": slicer.write,
}
