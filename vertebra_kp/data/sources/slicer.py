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
keeps when it saves (``spacing_mm=0.143``; one suffices, all must agree; ``spacing_mm=unknown`` where positions are
pixels). Without it, the size is the one that Slicer takes from the film: PixelSpacing or ImagerPixelSpacing of
DICOM, the resolution of a JPG or TIFF, else 1 mm. Where that is not certain, or points would lie off the film, an
error asks for the description.

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
from vertebra_kp.data.film_file import FilmError, is_dicom
from vertebra_kp.data.images import print_spacing_mm
from vertebra_kp.data.names import parse_corner
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, named_film, shown_size
from vertebra_kp.data.sources.files import nfc, read_json
from vertebra_kp.data.sources.folder import files_under, films_under
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import MAX_NUMBER, numbers_of, of_kind

SUFFIX = ".mrk.json"
SIGNS = {"LPS": 1, "RAS": -1}  # of x and y
STATUSES = ("defined", "undefined", "preview", "missing")
MILLIMETRES = ("mm", ["mm", "UCUM", "millimeter"])
HALF_SLICE_MM = 0.5  # a film is one slice of 1 mm

_SCHEMA = re.compile(r"markups-schema-v1\.\d+\.\d+\.json#*$", re.IGNORECASE)  # those that Slicer accepts
_SPACING = re.compile(r"spacing_mm=([^\s;,]*)")
UNKNOWN = "unknown"  # spacing: positions are pixels
ASKED = "write spacing_mm=NUMBER, by which the film was opened, or spacing_mm=unknown into a point's description"


def read_records(root: Path, schema: Schema) -> list[Record]:
    files = [path for path in files_under(root) if path.name.endswith(SUFFIX)]
    if not files:
        raise SourceError(
            f"{root} holds no *{SUFFIX}; data.root of slicer is the folder with films and point lists"
        )
    films: dict[str, list[Path]] = defaultdict(list)
    for film in films_under(root):
        films[nfc(str(film.with_suffix("")))].append(film)
    reading = Reading()
    for path in files:
        with reading.at(path.relative_to(root).as_posix()):
            beside = films[nfc(str(path).removesuffix(SUFFIX))]
            if len(beside) != 1:
                names = ", ".join(film.name for film in beside) or "none"
                raise ValueError(f"wanted one film of this name beside it, found {names}")
            name = beside[0].relative_to(root).as_posix()
            placed, said = _read_corners(read_json(path, within=root))
            named = named_film(root, name, {"spacing_mm": None if said == UNKNOWN else said})
            if placed:
                reading.add(named, Labels(schema, _in_pixels(placed, named, said)))
    empty = f"no *{SUFFIX} in {root} has a placed control point; label films and save them again"
    return reading.finish(root, "correct these files", empty=empty)


def _in_pixels(placed: list[Corner], film: Record, said: float | str | None) -> list[Corner]:
    """Corners of positions in mm, in continuous image coordinates; ValueError where nobody knows the scale."""
    size_mm = _opened_with(film) if said is None else (1.0, 1.0) if isinstance(said, str) else (said, said)
    found = points_from_indices(np.array([(corner.x, corner.y) for corner in placed]) / size_mm)
    if said is None and size_mm != (1.0, 1.0) and (shown := shown_size(film)):
        off = np.any((found < 0) | (found > shown[::-1]), axis=1)
        if off.mean() > 0.5:
            told = f"{off.sum()} of {off.size} points lie off the film, whose pixels have {size_mm[0]:.4g} mm"
            raise ValueError(f"{told}; {ASKED}")
    return [corner._replace(x=float(x), y=float(y)) for corner, (x, y) in zip(placed, found, strict=True)]


def _opened_with(film: Record) -> tuple[float, float]:
    """Width and height of a pixel that Slicer takes from a film; 1 mm for one that does not say, or is damaged."""
    path = film.image_path
    try:
        if is_dicom(path):
            from vertebra_kp.data.dicom import viewer_spacings_mm  # here: pydicom takes an eighth of a second

            found = viewer_spacings_mm(path)
        elif (by_print := print_spacing_mm(path)) is None:
            found = []
        else:  # Slicer passes over the resolution of a PNG, other programs do not
            found = [by_print, (1.0, 1.0)] if path.suffix.lower() == ".png" else [by_print]
    except FilmError:
        found = []
    if len(found) > 1:
        told = " or ".join(f"{width_mm:.4g}" for width_mm, _ in found)
        raise ValueError(f"its film's pixels have {told} mm, whichever is taken; {ASKED}")
    return found[0] if found else (1.0, 1.0)


def _read_corners(content: object) -> tuple[list[Corner], float | str | None]:
    """Corners in mm from the first pixel's centre, and what is said of a pixel's size: ``UNKNOWN``, or nothing.

    ValueError lists what is wrong.
    """
    file = content if isinstance(content, dict) else {}
    schema = file.get("@schema")
    if not isinstance(schema, str) or not _SCHEMA.search(schema):
        raise ValueError(
            f"@schema must name markups-schema-v1.x.x.json, got {short(schema)}; save it with Slicer 5"
        )
    placed: list[Corner] = []  # in mm from the centre of the first pixel
    spacings: set[float | str] = set()
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
        faults.found.append(f"spacing_mm of the control points must agree, got {short(sorted(spacings, key=str))}")
    faults.raise_all()
    return placed, next(iter(spacings), None)


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


def _parse_spacing(point: dict[str, object]) -> set[float | str]:
    """The size of a pixel that a point's description names, ``UNKNOWN``, or nothing."""
    description = point.get("description", "")
    if not isinstance(description, str):
        raise ValueError(f"description must be a text, got {short(description)}")
    match = _SPACING.search(description)
    if not match:
        return set()
    if match[1] == UNKNOWN:
        return {UNKNOWN}
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
