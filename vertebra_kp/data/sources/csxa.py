"""CSXA, the Cervical Spine X-ray Atlas: 4,963 lateral films of the neck with the corners of C2..C7.

Ran et al., "A high-quality dataset featuring classified and annotated cervical spine X-ray atlas", Scientific
Data 11 (2024), https://doi.org/10.1038/s41597-024-03383-0; films and labels at
https://doi.org/10.57760/sciencedb.15391, whose page states the licence. Layout of version 3::

    datasets-PNG/NNNNAAA.png       NNNN is the number of the case, AAA the age
    datasets-JSON/NNNNAAA.json     as labelme saves it, one shape of one point per landmark

    {"shapes": [{"label": "C3 top left", "points": [[812.5, 640.0]], "shape_type": "point"}, ...], ...}

Landmarks are C2 bottom left, bottom right and centroid, and C3..C7 top left, top right, bottom left, bottom
right: 23 a film. C2's centroid is no corner and is left out; any other name is an error, a landmark that is
missing is unlabelled. Coordinates are labelme's, continuous in the film as displayed. Left is the side of the
image, and anterior: the authors' measuring code takes the left points for the front ones. The size of a pixel
stands in the data set's table and is not read.

No copy was at hand: the layout is the one that the authors' code (github.com/yran888/CSXA-dataset) and public
programs that read all 4,963 files rely on. They report one fault, a landmark that is given twice
(``GIVEN_TWICE``): since nobody knows which of the two is meant, that corner is left unlabelled, and the record's
notes say so.
"""

import re
from pathlib import Path
from reprlib import repr as short

from vertebra_kp.core.anatomy import SCHEMAS, Schema
from vertebra_kp.data.names import corner_name
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, named_film
from vertebra_kp.data.sources.labelme import check_document_size, read_document, shape_points
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import of_kind

FILMS, LABELS = "datasets-PNG", "datasets-JSON"
LEVELS = SCHEMAS["la_cervical"].levels
NO_CORNER = "C2 centroid"
GIVEN_TWICE = {"2548130": ("C3", "TR")}  # by name of the film
SHAPE_TYPES = ("point", "polygon")  # a polygon of one point is a slip of the hand that labelme lets pass

_NAME = re.compile(r"^(\d{4})\d{3}$")
_LANDMARK = re.compile(r"^(C\d) (top|bottom) (left|right)$")
_SIDES = {"top": "T", "bottom": "B", "left": "L", "right": "R"}


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Groups are numbers of cases; a film without labels is an error."""
    if schema.view != "LA" or not set(schema.levels) & set(LEVELS):
        raise SourceError(f"csxa holds {LEVELS[0]}..{LEVELS[-1]} of lateral films, got anatomy {schema.name}")
    if not (root / LABELS).is_dir() or not (root / FILMS).is_dir():
        raise SourceError(f"{root} must hold {FILMS} and {LABELS}; data.root of csxa is the folder with both")
    files = {path.stem: path for path in sorted((root / LABELS).glob("*.json")) if not path.name.startswith("._")}
    films = {path.stem for path in (root / FILMS).glob("*.png") if not path.name.startswith("._")}
    reading = Reading()
    reading.found += [f"{FILMS}/{name}.png: film without labels" for name in sorted(films - files.keys())]
    for name, path in files.items():
        with reading.at(f"{LABELS}/{path.name}"):
            if not (case := _NAME.match(name)):
                raise ValueError(
                    "the name must be the number of the case and the age, seven digits like 0001035.json"
                )
            film = named_film(root, f"{FILMS}/{name}.png", {"patient": case[1]})
            document, shapes = read_document(root, path)
            check_document_size(film, document)
            corners, notes = _read_corners(name, shapes)
            reading.add(film, Labels(schema, corners), notes)
    remedy = "restore these files from the data set, or take them out with their films"
    return reading.finish(root, remedy, empty=f"{root / LABELS} holds no *.json; unpack the data set there")


def _read_corners(name: str, shapes: list[object]) -> tuple[list[Corner], tuple[str, ...]]:
    """The corners of a film's landmarks, and notes; ValueError lists what is wrong."""
    corners, faults = [], Faults()
    for number, shape in enumerate(shapes):
        with faults.at(f"shapes[{number}]"):
            corners.append(_read_corner(of_kind(shape, dict, "a shape must be an object")))
    faults.raise_all()
    given = [corner for corner in corners if corner is not None]
    twice = [corner for corner in given if (corner.level, corner.name) == GIVEN_TWICE.get(name)]
    if len(twice) < 2:
        return given, ()
    note = f"{corner_name(*GIVEN_TWICE[name])} is given twice in the data set and left unlabelled"
    return [corner for corner in given if corner not in twice], (note,)


def _read_corner(shape: dict[str, object]) -> Corner | None:
    """The corner that a shape gives, None for the centroid of C2; ValueError says why it gives none."""
    label, kind = shape.get("label"), shape.get("shape_type")
    landmark = _LANDMARK.match(label) if isinstance(label, str) else None
    if label != NO_CORNER and (landmark is None or landmark[1] not in LEVELS):
        raise ValueError(f"label must be a landmark like 'C3 top left' or {NO_CORNER!r}, got {short(label)}")
    if kind not in SHAPE_TYPES:
        raise ValueError(f"shape_type of {label!r} must be {' or '.join(SHAPE_TYPES)}, got {short(kind)}")
    points = shape_points(shape)
    if len(points) != 1:
        raise ValueError(f"{label!r} must have one point, got {len(points)}")
    if landmark is None:
        return None
    return Corner(landmark[1], _SIDES[landmark[2]] + _SIDES[landmark[3]], *points[0])
