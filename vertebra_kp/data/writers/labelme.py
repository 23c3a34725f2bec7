"""LabelMe: one JSON file per film, beside where the film goes, which the labelme program opens.

Layout and coordinates as in ``data/sources/labelme.py``, which reads the files back. A labelled corner becomes
a ``point`` named ``L1.TL``. The format has no place for the other states, for spacing, groups and scores: they
are left out, and a corner that is not labelled is unlabelled when read back.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vertebra_kp.data.names import corner_name
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.labelme import SUFFIX
from vertebra_kp.data.writers.files import write_texts

VERSION = "5.5.0"  # of labelme, whose fields these are; later ones open them as well
DECIMALS = 4


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    texts = ((film.file, json.dumps(_document(film), ensure_ascii=False, indent=2)) for film in films)
    write_texts(folder, texts, SUFFIX)


def _document(film: LabelledFilm) -> dict[str, object]:
    height, width = film.size
    return {
        "version": VERSION,
        "flags": {},
        "shapes": [_point(corner_name(level, corner), x, y) for level, corner, x, y in film.labelled()],
        "imagePath": PurePosixPath(film.file).name,
        "imageData": None,
        "imageHeight": int(height),
        "imageWidth": int(width),
    }


def _point(label: str, x: float, y: float) -> dict[str, object]:
    return {
        "label": label,
        "points": [[round(x, DECIMALS), round(y, DECIMALS)]],
        "group_id": None,
        "description": "",
        "shape_type": "point",
        "flags": {},
        "mask": None,
    }
