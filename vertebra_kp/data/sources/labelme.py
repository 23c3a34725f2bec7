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

Misspelled names of levels and corners are errors, and so is a film of another size than the stated one. Other
shapes and names are left out, which a warning says. The format knows no patient and no spacing.
"""

import posixpath
from pathlib import Path
from reprlib import repr as short

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.names import is_vertebral, parse_corner, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, check_size, is_clockwise, named_film
from vertebra_kp.data.sources.files import forward_slashes, read_json
from vertebra_kp.data.sources.folder import files_under
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.sources.values import numbers_of, of_kind

SUFFIX = ".json"
SHAPES = ("point", "polygon", "line", "linestrip")
POLYGON_CORNERS = ("TL", "TR", "BR", "BL")
LINE_CORNERS = ("TL", "TR")
LINE_LEVEL = "S1"  # of any other vertebra a line could be either endplate


def read_records(root: Path, schema: Schema) -> list[Record]:
    if not root.is_dir():
        raise SourceError(f"{root} is no folder; data.root of labelme is the folder with films and JSON files")
    reading = Reading()
    for path in (path for path in files_under(root) if path.suffix.lower() == SUFFIX):
        name = path.relative_to(root).as_posix()
        with reading.at(name):
            document, found = read_document(root, path)
            shapes = [(number, shape) for number, shape in enumerate(found) if _is_read(shape, name, reading)]
            if not shapes:
                continue
            film, labels = _film(root, path, document.get("imagePath")), Labels(schema)
            check_document_size(film, document)
            for number, shape in shapes:
                with reading.at(f"{name}: shapes[{number}]"):
                    labels.put(_corners(of_kind(shape, dict, "a shape must be an object")))
            reading.add(reading.new(film, name), labels)
    empty = f"{root} holds no {SUFFIX} file with shapes; label films with labelme, save them there"
    return reading.finish(root, "correct these in labelme, or take the files out", empty=empty)


def _is_read(shape: object, name: str, reading: Reading) -> bool:
    """Whether a shape may give corners; what is no label of a vertebra is left out."""
    if not isinstance(shape, dict) or not isinstance(label := shape.get("label"), str):
        return True  # to be found wrong
    kind = shape.get("shape_type")
    if is_vertebral(label) and (kind is None or kind in SHAPES or not isinstance(kind, str)):
        return True
    reading.leave_out(f"{kind or 'polygon'} shapes {short(label)}", name)
    return False


def read_document(root: Path, path: Path) -> tuple[dict[str, object], list[object]]:
    """A LabelMe document of ``root`` and its shapes; ValueError where it has no list of shapes."""
    document = read_json(path, within=root)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(shapes, list):
        raise ValueError("is no LabelMe file, it has no list 'shapes'; move it out of the folder")
    return document, shapes


def check_document_size(film: Record, document: dict[str, object]) -> None:
    """ValueError where the document is of a film of another size."""
    check_size(film, document.get("imageHeight"), document.get("imageWidth"))


def shape_points(shape: dict[str, object]) -> list[tuple[float, float]]:
    """The points (x, y) of a shape, continuous coordinates; ValueError for what are none."""
    wanted = "points must be a list of [x, y] in pixels"
    pairs = [numbers_of(point, 2, wanted) for point in of_kind(shape.get("points"), list, wanted)]
    return [(x, y) for x, y in pairs]


def _film(root: Path, path: Path, image_path: object) -> Record:
    """The film that a JSON names; ``..`` may lead to another folder of ``root``, but not out of it."""
    name = forward_slashes(of_kind(image_path, str, "imagePath must be the name of the film"))
    folder = path.parent.relative_to(root).as_posix()
    return named_film(root, posixpath.normpath(posixpath.join(folder, name)), {})


def _corners(shape: dict[str, object]) -> list[Corner]:
    """The corners that a shape gives; ValueError says why it gives none."""
    label, kind = of_kind(shape.get("label"), str, "label must be a text"), shape.get("shape_type")
    if kind == "point":
        names = [parse_corner(label)]
    elif kind == "polygon" or kind is None:  # the first versions knew polygons only
        kind, level = "polygon", parse_level(label)
        names = [(level, corner) for corner in POLYGON_CORNERS]
    elif kind in ("line", "linestrip"):
        level = parse_level(label)
        names = [(level, corner) for corner in LINE_CORNERS]
    else:
        raise ValueError(f"shape_type {short(kind)} of {label!r} is not read; draw a point per corner")
    xy = shape_points(shape)
    if len(xy) != len(names):
        raise ValueError(f"{kind} {label!r} must have {len(names)} points, got {len(xy)}")
    if kind == "polygon":
        _check_polygon(label, np.array(xy))
    elif kind != "point" and level != LINE_LEVEL:
        raise ValueError(f"{kind} {label!r} must be {LINE_LEVEL}; label {level} by a polygon or by points")
    elif kind != "point" and not xy[0][0] < xy[1][0]:
        raise ValueError(f"{kind} {label!r} must go from left to right (TL, TR); draw it again")
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
