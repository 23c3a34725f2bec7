"""CVAT: an unpacked export of a task, job or project as "CVAT for images 1.1".

Format: docs.cvat.ai/docs/dataset_management/formats/format-cvat (CVAT is MIT licensed; the format puts no terms
on the labels). Layout::

    annotations.xml
    images/NAME              of a task or job; NAME may have sub-folders
    images/SUBSET/NAME       of a project
    NAME                     films may also lie beside annotations.xml, when exported without them

    <annotations>
      <version>1.1</version> <meta>...</meta>
      <image id="0" name="a.png" width="500" height="1200">          a project adds subset="Train" task_id="7"
        <skeleton label="L1">
          <points label="TL" outside="0" occluded="0" points="201.50,97.25" />    also TR, BL, BR
        </skeleton>
        <points label="S1.TL" occluded="0" points="230.00,800.40" />
      </image>
    </annotations>

Corners are skeletons named by a level with points TL, TR, BL, BR, or single points named ``L1.TL``; every other
shape or name is an error, tags of images are not looked at. Coordinates are continuous, of the film as displayed.

``occluded`` corners are labelled as any other. A point of a skeleton cannot be deleted in CVAT, only hidden:
``outside`` alone is a corner beyond the film's edge, ``outside`` and ``occluded`` together one that nobody knows
(unlabelled); a hidden corner that the keypoint schema lacks (S1 below) is passed over. Levels that the schema
lacks are left out, corners without a point are unlabelled, films without a shape are skipped. The format knows no
patient, so every film is a group of its own, and no spacing. Lateral films look to the left.
"""

import io
import reprlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from vertebra_kp.anatomy import CORNERS, Schema, State
from vertebra_kp.data.names import corner_name, parse_corner, parse_level
from vertebra_kp.data.record import Record, label_arrays
from vertebra_kp.data.sources.files import film_inside, read_text
from vertebra_kp.data.sources.problems import SourceError, raise_if_any

ANNOTATIONS = "annotations.xml"
IMAGES = "images"
FORMAT = "CVAT for images 1.1"
NO_SHAPES = ("tag", "attribute")
MAX_COORDINATE = 1e6  # no film has that many pixels; float32 is still good to 1/16 pixel there

HIDDEN = {"0": State.OUTSIDE, "1": State.UNLABELLED}  # state of an outside point, by occluded

Mark = tuple[tuple[str, str], State, tuple[float, float]]  # (level, corner), state, (x, y) or (nan, nan)


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Films that have labels, ids are their paths relative to ``root``.

    Raises SourceError when nothing is labelled, and one that lists every problem with image and shape.
    """
    root = root.expanduser()
    path = root / ANNOTATIONS
    if not path.is_file():
        raise SourceError(f"{root} has no {ANNOTATIONS}; data.root of cvat is an unpacked export as {FORMAT}")
    records: dict[str, Record] = {}
    problems: list[str] = []
    try:
        for image in _images(root, path):
            shapes = [shape for shape in image if shape.tag not in NO_SHAPES]
            if not shapes:
                continue
            points, states, faults = _labels(shapes, schema)
            try:
                film = _film(root, image)
                id = film.relative_to(root).as_posix()
                if id in records:
                    faults.append("stands twice in the file; join the two")
                records[id] = Record(
                    id, film, id, points, states, anterior_side="left" if schema.view == "LA" else None
                )
            except (ValueError, OSError) as error:
                faults.append(str(error))
            problems += [f"image {image.get('name')!r}: {fault}" for fault in faults]
    except ValueError as error:
        problems.append(str(error))
    raise_if_any(problems, path, f"correct these in CVAT and export them again as {FORMAT}")
    if not records:
        raise SourceError(f"{path} has no image with shapes; label films in CVAT and export them as {FORMAT}")
    return [records[id] for id in sorted(records)]


def _images(root: Path, path: Path) -> Iterator[Element]:
    """Every image of the file, one at a time; ValueError says what is wrong with the file."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} is a link to a place outside {root}; copy the file there")
    parsed = iterparse(io.StringIO(read_text(path)), events=("start", "end"), forbid_dtd=True)
    try:
        _, annotations = next(parsed)
        if annotations.tag != "annotations":
            raise ValueError(f"{path} is no {FORMAT}: it begins with <{annotations.tag}>, wanted <annotations>")
        for event, element in parsed:
            if event == "end" and element.tag == "track":
                raise ValueError(f"{path} holds tracks, it is CVAT for video; export it as {FORMAT}")
            if event == "end" and element.tag == "image":
                yield element
                annotations.clear()  # a project holds many thousands of images
    except ParseError as error:
        raise ValueError(f"{path} is not XML ({error}); export it again") from error
    except DefusedXmlException as error:
        raise ValueError(f"{path} declares entities or a document type, as no export does ({error})") from error


def _film(root: Path, image: Element) -> Path:
    """The film of an image, wherever an export of a project or a task has it, or beside the XML."""
    name, subset = image.get("name"), image.get("subset")
    if not name:
        raise ValueError("name is missing; it must be the name of the film")
    for place in ([f"{IMAGES}/{subset}/{name}"] if subset else []) + [f"{IMAGES}/{name}"]:
        try:
            return film_inside(root, place)
        except ValueError:
            continue
    return film_inside(root, name)


def _labels(shapes: list[Element], schema: Schema) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Points, states, and what is wrong with the shapes of an image."""
    points, states = label_arrays(schema)
    seen: set[str] = set()
    faults: list[str] = []
    for shape in shapes:
        try:
            marks = _marks(shape)
        except ValueError as error:
            faults.append(f"{shape.tag} {reprlib.repr(shape.get('label'))}: {error}")
            continue
        for (level, corner), state, xy in marks:
            name = corner_name(level, corner)
            if name in seen:
                faults.append(f"{name} is labelled twice; delete one of the two")
            elif level in schema.levels:
                at = schema.levels.index(level), CORNERS.index(corner)
                if schema.exists[at]:
                    points[at] = xy
                    states[at] = state
                elif state == State.LABELLED:
                    faults.append(f"{level} has no {corner} in {schema.name}; delete {name}, or hide it (outside)")
            seen.add(name)
    return points, states, faults


def _marks(shape: Element) -> list[Mark]:
    """The corners that a shape gives; ValueError says why it gives none."""
    label = shape.get("label") or ""
    if shape.tag == "points":
        return [(parse_corner(label), *_state_and_xy(shape))]
    if shape.tag != "skeleton":
        raise ValueError("is not read; draw a skeleton of TL, TR, BL, BR per level, or a point per corner")
    level, marks = parse_level(label), []
    for element in shape:
        if element.tag in NO_SHAPES:
            continue
        if element.tag != "points":
            raise ValueError(f"its elements must be points, got {element.tag}")
        name = element.get("label") or ""
        try:
            marks.append((parse_corner(f"{level}.{name}"), *_state_and_xy(element)))
        except ValueError as error:
            raise ValueError(f"point {name!r}: {error}") from error
    return marks


def _state_and_xy(point: Element) -> tuple[State, tuple[float, float]]:
    outside, occluded = (point.get(flag, "0") for flag in ("outside", "occluded"))
    if outside not in ("0", "1") or occluded not in ("0", "1"):
        raise ValueError(f"outside and occluded must be 0 or 1, got {outside!r}, {occluded!r}")
    if outside == "1":  # CVAT gives a hidden point a place, which means nothing
        return HIDDEN[occluded], (np.nan, np.nan)
    text = point.get("points") or ""
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError as error:
        raise ValueError(f"points must be one x,y in pixels, got {reprlib.repr(text)}") from error
    if not (abs(x) <= MAX_COORDINATE and abs(y) <= MAX_COORDINATE):  # true for NaN
        raise ValueError(f"points must be pixels, up to {MAX_COORDINATE:.0f}, got {reprlib.repr(text)}")
    return State.LABELLED, (x, y)
