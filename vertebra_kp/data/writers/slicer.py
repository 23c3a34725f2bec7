"""3D Slicer: a point list ``NAME.mrk.json`` for each film ``NAME.png``, as ``sources/slicer.py`` describes it.

Positions are in mm where the size of a pixel is known, else in pixels. To see them on the film, open it in Slicer,
set that size under Volumes, Volume Information, Image Spacing (1 if unknown), and open the point list.
Corners that are not labelled are left out, whatever the reason; patients and scores are not written.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertebra_kp.data.names import corner_name
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.slicer import SUFFIX
from vertebra_kp.errors import UserError
from vertebra_kp.geometry import points_to_indices

SCHEMA = (  # an identifier, not an address: Slicer compares its end
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    """A point list beside where each film stands, or will stand, in ``folder``.

    Raises UserError, before anything is written, for a film outside ``folder`` and for two of one name.
    """
    folder = folder.expanduser()
    paths: dict[Path, LabelledFilm] = {}
    for film in films:
        path = (folder / film.file).with_suffix(SUFFIX)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{film.file} leads out of {folder}; give it a path below the folder")
        if path in paths:
            raise UserError(
                f"{film.file} and {paths[path].file} would share the point list {path.name}; rename one of them"
            )
        paths[path] = film
    for path, film in paths.items():
        content = {"@schema": SCHEMA, "markups": [_markup(film)]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, allow_nan=False, indent=1), encoding="utf-8")


def _markup(film: LabelledFilm) -> dict[str, Any]:
    description = "" if film.spacing_mm is None else f"spacing_mm={float(film.spacing_mm)}"
    points = []
    for number, (level, corner, x, y) in enumerate(film.labelled(), start=1):
        i, j = points_to_indices([x, y]) * (film.spacing_mm or 1)
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
    return {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "controlPoints": points,
    }
