"""LabelMe: films with one JSON file each beside them, as the labelme program saves it.

Program: github.com/wkentaro/labelme (GPL-3.0; its file layout puts no terms on the labels). Layout::

    a.png, a.json            also in sub-folders; ``imagePath`` names the film, relative to its JSON

    {"version": "5.5.0", "flags": {}, "imagePath": "a.png", "imageData": null,
     "imageHeight": 1200, "imageWidth": 500,
     "shapes": [{"label": "L1.TL", "shape_type": "point", "points": [[201.5, 97.25]], ...}, ...]}

Shapes that are read, with continuous coordinates of the film as displayed:

- ``point`` with the name of a corner, ``L1.TL``;
- ``polygon`` of four points with the name of a level, ``L1``: drawn clockwise on the image from the top
  left corner, so TL, TR, BR, BL;
- ``line`` or ``linestrip`` of two points named ``S1``: TL, TR.

Every other shape or name is an error. Levels that the keypoint schema lacks are left out, corners without a
shape are unlabelled, and films whose JSON has no shape are skipped. The format knows no patient, so every film
is a group of its own, and no spacing. Lateral films have their anterior side at the left of the image.
"""

import posixpath
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.names import parse_corner, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import (
    MAX_NUMBER,
    Corner,
    Film,
    film_record,
    is_clockwise,
    labels_of_shapes,
    named_film,
)
from vertebra_kp.data.sources.files import forward_slashes, read_json
from vertebra_kp.data.sources.problems import SourceError, raise_if_any

SUFFIX = ".json"
POLYGON_CORNERS = ("TL", "TR", "BR", "BL")
LINE_CORNERS = ("TL", "TR")
LINE_LEVEL = "S1"  # of any other vertebra a line could be either endplate


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Films that have labels, ids are their paths relative to ``root``.

    Raises SourceError when nothing is labelled, and one that lists every problem with file and shape.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise SourceError(f"{root} is no folder; data.root of labelme is the folder with films and JSON files")
    records: dict[str, Record] = {}
    json_of_film: dict[str, str] = {}
    problems: list[str] = []
    for path in _json_files(root):
        name = path.relative_to(root).as_posix()
        try:
            document = read_document(root, path)
            if not document["shapes"]:
                continue
            film = _film(root, path, document.get("imagePath"))
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {error}")
            continue
        places = ((f"shapes[{number}]", shape) for number, shape in enumerate(document["shapes"]))
        labels, faults = labels_of_shapes(places, _corners, schema)
        if json_of_film.setdefault(film.id, name) != name:
            faults.append(f"imagePath names {film.id}, as {json_of_film[film.id]} does; keep one of the two")
        problems += [f"{name}: {fault}" for fault in faults]
        records[film.id] = film_record(film, labels)
    raise_if_any(problems, root, "correct these in labelme, or take the files out")
    if not records:
        raise SourceError(f"{root} holds no {SUFFIX} file with shapes; label films with labelme, save them there")
    return [records[id] for id in sorted(records)]


def read_document(root: Path, path: Path) -> dict[str, Any]:
    """A LabelMe document of ``root`` that has a list of shapes; ValueError says what is wrong with the file."""
    document = read_json(path, within=root)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        raise ValueError("is no LabelMe file, it has no list 'shapes'; move it out of the folder")
    return document


def shape_points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    """The points (x, y) of a shape, continuous coordinates; ValueError for what are none."""
    points = shape.get("points")
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise ValueError(f"points must be a list of [x, y] in pixels, got {reprlib.repr(points)}")
    return [(float(x), float(y)) for x, y in points]


def _is_point(point: Any) -> bool:
    if not isinstance(point, list) or len(point) != 2:
        return False
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in point)
    return numbers and all(abs(value) <= MAX_NUMBER for value in point)  # false for NaN


def _json_files(root: Path) -> list[Path]:
    """Every JSON below ``root``; files named ._* are what macOS leaves on other disks."""
    files = (path for path in root.rglob("*") if path.suffix.lower() == SUFFIX)
    return sorted(path for path in files if not path.name.startswith("._") and not path.is_dir())


def _film(root: Path, path: Path, image_path: Any) -> Film:
    """The film that a JSON names; ``..`` may lead to another folder of ``root``, but not out of it."""
    if not isinstance(image_path, str) or not image_path:
        raise ValueError(f"imagePath must be the name of the film, got {reprlib.repr(image_path)}")
    folder = path.parent.relative_to(root).as_posix()
    return named_film(root, posixpath.normpath(posixpath.join(folder, forward_slashes(image_path))), {})


def _corners(shape: Any) -> list[Corner]:
    """The corners that a shape gives; ValueError says why it gives none."""
    if not isinstance(shape, dict):
        raise ValueError(f"a shape must be an object, got {reprlib.repr(shape)}")
    label, kind = shape.get("label"), shape.get("shape_type")
    if not isinstance(label, str):
        raise ValueError(f"label must be a text, got {reprlib.repr(label)}")
    if kind == "point":
        names = [parse_corner(label)]
    elif kind == "polygon" or kind is None:  # the first versions knew polygons only
        kind, level = "polygon", parse_level(label)
        names = [(level, corner) for corner in POLYGON_CORNERS]
    elif kind in ("line", "linestrip"):
        level = parse_level(label)
        names = [(level, corner) for corner in LINE_CORNERS]
    else:
        raise ValueError(f"shape_type {reprlib.repr(kind)} of {label!r} is not read; draw a point per corner")
    xy = shape_points(shape)
    if len(xy) != len(names):
        raise ValueError(f"{kind} {label!r} must have {len(names)} points, got {len(xy)}")
    if kind == "polygon":
        _check_polygon(label, np.array(xy))
    elif kind != "point":
        _check_line(label, kind, level, xy)
    return [Corner(*name, *point) for name, point in zip(names, xy, strict=True)]


def _check_polygon(label: str, xy: np.ndarray) -> None:
    """``xy`` [4, 2] in drawing order must be a vertebra's TL, TR, BR, BL.

    A start at another corner turns the endplates by 90 degrees; up to 45 degrees of tilt the two cannot be
    mixed up.
    """
    if not is_clockwise(xy):
        raise ValueError(
            f"polygon {label!r} must go clockwise round the vertebra from its top left corner (TL, TR, BR, BL); "
            f"draw it again, or label its corners as points ({label}.TL, ...)"
        )
    across, down = xy[1] - xy[0] + xy[2] - xy[3]  # the upper edge and the lower one, from left to right
    if abs(down) > across:
        raise ValueError(
            f"polygon {label!r} must begin at the top left corner, but its upper edge is tilted by "
            f"{np.rad2deg(np.arctan2(down, across)):.0f} degrees; draw it again, or label its corners as points "
            f"({label}.TL, ...) if the vertebra is tilted that much"
        )


def _check_line(label: str, kind: str, level: str, xy: list[tuple[float, float]]) -> None:
    if level != LINE_LEVEL:
        raise ValueError(f"{kind} {label!r} must be {LINE_LEVEL}; label {level} by a polygon or by points")
    if not xy[0][0] < xy[1][0]:
        raise ValueError(f"{kind} {label!r} must go from left to right (TL, TR); draw it again")
