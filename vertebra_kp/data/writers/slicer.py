"""3D Slicer: a point list ``NAME.mrk.json`` for each film ``NAME.png``, as ``sources/slicer.py`` describes it.

Positions are in mm where the size of a pixel is known, else in pixels, and descriptions say which. To see them,
open the film in Slicer, set that size under Volumes, Volume Information, Image Spacing (1 if unknown), and open
the point list.
Corners that are not labelled are left out, whatever the reason; patients and scores are not written.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.data.names import corner_name
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.slicer import SUFFIX, UNKNOWN
from vertebra_kp.data.writers.files import write_texts

SCHEMA = (  # an identifier, not an address: Slicer compares its end
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    texts = ((film.file, json.dumps(_document(film), allow_nan=False, indent=1)) for film in films)
    write_texts(folder, texts, SUFFIX)


def _document(film: LabelledFilm) -> dict[str, object]:
    description = f"spacing_mm={UNKNOWN if film.spacing_mm is None else float(film.spacing_mm)}"
    points = []
    for number, (level, corner, x, y) in enumerate(film.labelled(), start=1):
        i, j = points_to_indices(np.array([x, y])) * (film.spacing_mm or 1)
        points.append(
            {
                "id": str(number),
                "label": corner_name(level, corner),
                "description": description,
                "position": [float(i), float(j), 0.0],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
        )
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "controlPoints": points,
    }
    return {"@schema": SCHEMA, "markups": [markup]}
