"""3D Slicer: point lists (``.mrk.json``), one file beside each film.

Format: https://slicer.readthedocs.io/en/latest/developer_guide/modules/markups.html, schema v1.0.3 (Slicer has a
licence of the BSD kind; films and labels keep the licence of their makers). Layout, in folders at any depth::

    a.png, a.mrk.json     the same name, with any suffix of a film

    {"@schema": "https://.../markups-schema-v1.0.3.json#",
     "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": [
       {"label": "L1.TL", "description": "spacing_mm=0.143", "position": [44.61, 15.4, 0.0],
        "positionStatus": "defined"}]}]}

Slicer opens a film as one slice with the centre of its first pixel at the origin, L to the right and P down, so
``position`` is the pixel's index times its size in mm, and z is within the slice. RAS has the opposite signs.

Markups have no field for the size of a pixel. It is read from the control points' descriptions, which Slicer
keeps when it saves (``spacing_mm=0.143``; one suffices, all must agree). Without it, pixels are 1 mm wide, as
Slicer takes films that do not say: a film that was opened with another spacing needs the description.

Points that are not placed (``positionStatus`` other than "defined") are unlabelled. The format has no patient.
"""

import math
import re
from collections import defaultdict
from pathlib import Path
from reprlib import repr as short

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.names import parse_corner
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, named_film
from vertebra_kp.data.sources.files import read_json
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import MAX_NUMBER, numbers_of, of_kind

SUFFIX = ".mrk.json"
SIGNS = {"LPS": 1, "RAS": -1}  # of x and y
STATUSES = ("defined", "undefined", "preview", "missing")
MILLIMETRES = ("mm", ["mm", "UCUM", "millimeter"])
HALF_SLICE_MM = 0.5  # a film is one slice of 1 mm

_SCHEMA = re.compile(r"markups-schema-v1\.\d+\.\d+\.json#*$", re.IGNORECASE)  # those that Slicer accepts
_SPACING = re.compile(r"spacing_mm=([^\s;,]*)")


def read_records(root: Path, schema: Schema) -> list[Record]:
    files = sorted(path for path in root.rglob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not files:
        raise SourceError(
            f"{root} holds no *{SUFFIX}; data.root of slicer is the folder with films and point lists"
        )
    films: dict[str, list[Path]] = defaultdict(list)
    for film in find_films([str(root)]):
        films[str(film.with_suffix(""))].append(film)
    reading = Reading()
    for path in files:
        with reading.at(path.relative_to(root).as_posix()):
            beside = films[str(path).removesuffix(SUFFIX)]
            if len(beside) != 1:
                names = ", ".join(film.name for film in beside) or "none"
                raise ValueError(f"wanted one film of this name beside it, found {names}")
            name = beside[0].relative_to(root).as_posix()
            corners, spacing_mm = _read_corners(read_json(path, within=root))
            named = named_film(root, name, {"spacing_mm": spacing_mm})
            if corners:
                reading.add(named, Labels(schema, corners))
    empty = f"no *{SUFFIX} in {root} has a placed control point; label films and save them again"
    return reading.finish(root, "correct these files", empty=empty)


def _read_corners(content: object) -> tuple[list[Corner], float | None]:
    """Corners in continuous image coordinates and the size of a pixel; ValueError lists what is wrong."""
    file = content if isinstance(content, dict) else {}
    schema = file.get("@schema")
    if not isinstance(schema, str) or not _SCHEMA.search(schema):
        raise ValueError(
            f"@schema must name markups-schema-v1.x.x.json, got {short(schema)}; save it with Slicer 5"
        )
    placed: list[Corner] = []  # in mm from the centre of the first pixel
    spacings: set[float] = set()
    faults = Faults()
    for i, markup in enumerate(of_kind(file.get("markups"), list, "markups must be a list")):
        with faults.at(f"markups[{i}]"):
            sign, points = _parse_markup(markup)
            for j, point in enumerate(points):
                with faults.at(f"markups[{i}].controlPoints[{j}]"):
                    spacings |= _parse_spacing(point)
                    if point.get("positionStatus", "defined") == "defined":
                        corner = _parse_point(point)
                        placed.append(corner._replace(x=sign * corner.x, y=sign * corner.y))
    if len(spacings) > 1:
        faults.found.append(f"spacing_mm of the control points must agree, got {short(sorted(spacings))}")
    faults.raise_all()
    spacing_mm = next(iter(spacings), None)
    corners = []
    for corner in placed:
        x, y = points_from_indices(np.array([corner.x, corner.y]) / (spacing_mm or 1))
        corners.append(corner._replace(x=float(x), y=float(y)))
    return corners, spacing_mm


def _parse_markup(markup: object) -> tuple[int, list[dict[str, object]]]:
    """(sign of x and y, control points) of one point list."""
    if not isinstance(markup, dict) or markup.get("type") != "Fiducial":
        what = markup.get("type") if isinstance(markup, dict) else markup
        raise ValueError(f"type must be Fiducial, got {short(what)}; take other markups out")
    system, units = markup.get("coordinateSystem", "LPS"), markup.get("coordinateUnits", "mm")
    if not isinstance(system, str) or system not in SIGNS:
        raise ValueError(f"coordinateSystem must be LPS or RAS, got {short(system)}")
    if units not in MILLIMETRES:
        raise ValueError(f"coordinateUnits must be mm, got {short(units)}")
    wanted = "controlPoints must be a list of objects"
    points = [of_kind(point, dict, wanted) for point in of_kind(markup.get("controlPoints"), list, wanted)]
    for point in points:
        if (status := point.get("positionStatus", "defined")) not in STATUSES:
            raise ValueError(f"positionStatus must be one of {', '.join(STATUSES)}, got {short(status)}")
    return SIGNS[system], points


def _parse_spacing(point: dict[str, object]) -> set[float]:
    """The size of a pixel that a point's description names, or nothing."""
    description = point.get("description", "")
    if not isinstance(description, str):
        raise ValueError(f"description must be a text, got {short(description)}")
    match = _SPACING.search(description)
    if not match:
        return set()
    try:
        spacing_mm = float(match[1])
    except ValueError:
        spacing_mm = math.nan
    if not 0 < spacing_mm <= MAX_NUMBER:
        raise ValueError(f"spacing_mm must be a number above 0, got {short(match[1])}")
    return {spacing_mm}


def _parse_point(point: dict[str, object]) -> Corner:
    """The corner of a control point, x and y in mm as they stand in the file."""
    label = of_kind(point.get("label"), str, "label must be a text like L1.TL")
    level, corner = parse_corner(label)
    x, y, z = numbers_of(point.get("position"), 3, f"position of {label} must be three numbers in mm")
    if abs(z) > HALF_SLICE_MM:
        raise ValueError(f"position of {label} is off the film, z must be 0, got {z:g}; place it in the slice")
    return Corner(level, corner, x, y)
