"""Corners of films written in formats that other tools open, each format in its own file.

``write(films, folder)`` of a file writes labels for films that stand, or will stand, in ``folder``. It raises
UserError, and writes nothing, where a file is there already, for a name that leads out of ``folder``, also through
a link, for one that the format cannot hold, and for two films that would share a file.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.writers import coco, csv, cvat, json, label_studio, labelme, slicer

_FORMATS = (coco, csv, cvat, json, label_studio, labelme, slicer)
WRITERS: dict[str, Callable[[Sequence[LabelledFilm], Path], None]] = {
    module.__name__.rpartition(".")[2]: module.write for module in _FORMATS
}
WITHOUT_PATIENT = ("cvat", "labelme", "slicer")
WITHOUT_SPACING = ("cvat", "labelme")


def what_is_lost(films: Sequence[LabelledFilm], to: str) -> list[str]:
    """What the films have and the format ``to`` has no place for."""
    lost = []
    if to in WITHOUT_PATIENT and any(film.group != film.file for film in films):
        lost.append("of which patient an image is; make splits from the original, or give pairs of a patient")
    if to in WITHOUT_SPACING and any(film.spacing_mm is not None for film in films):
        lost.append("how large a pixel is")
    return lost
