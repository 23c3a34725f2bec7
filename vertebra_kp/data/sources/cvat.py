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

Corners are skeletons named by a level with points TL, TR, BL, BR, or single points named ``L1.TL``; misspelled
names of levels and corners are errors. Other shapes and names are left out, which a warning says; tags of images
are not looked at. Coordinates are continuous, of the film as displayed, whose size must be the one that is stated.

``occluded`` corners are labelled as any other. A point of a skeleton cannot be deleted in CVAT, only hidden:
``outside`` alone is a corner beyond the film's edge, ``outside`` and ``occluded`` together one that nobody knows
(unlabelled); a hidden corner that the keypoint schema lacks (S1 below) is passed over. The format knows no patient
and no spacing.
"""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as short
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from vertebra_kp.core.anatomy import Schema, State
from vertebra_kp.data.names import is_vertebral, parse_corner, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, check_size, named_film
from vertebra_kp.data.sources.files import read_text
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import MAX_NUMBER

ANNOTATIONS = "annotations.xml"
IMAGES = "images"
FORMAT = "CVAT for images 1.1"
SHAPES = ("points", "skeleton")
NO_SHAPES = ("tag", "attribute")

HIDDEN = {"0": State.OUTSIDE, "1": State.UNLABELLED}  # state of an outside point, by occluded


def read_records(root: Path, schema: Schema) -> list[Record]:
    path = root / ANNOTATIONS
    if not path.is_file():
        raise SourceError(f"{root} has no {ANNOTATIONS}; data.root of cvat is an unpacked export as {FORMAT}")
    reading = Reading()
    with reading.at():
        for number, image in enumerate(_images(root, path), start=1):
            place, labels = f"image {image.get('name')!r}", Labels(schema)
            shapes = []
            for shape in image:
                label = shape.get("label") or "L1"  # one without a name is a fault, to be found later
                if shape.tag in SHAPES and is_vertebral(label):
                    shapes.append(shape)
                elif shape.tag not in NO_SHAPES:
                    reading.leave_out(f"{shape.tag} shapes {short(shape.get('label'))}", place)
            if not shapes:
                continue
            for shape in shapes:
                with reading.at(f"{place}: {shape.tag} {short(shape.get('label'))}"):
                    labels.put(_corners(shape))
            with reading.at(place):
                film = reading.new(_film(root, image), f"image {number}")
                check_size(film, _pixels(image.get("height")), _pixels(image.get("width")))
                reading.add(film, labels)
    empty = f"{path} has no image with shapes; label films in CVAT and export them as {FORMAT}"
    return reading.finish(path, f"correct these in CVAT and export them again as {FORMAT}", empty=empty)


def _images(root: Path, path: Path) -> Iterator[Element]:
    """Every image of the file, one at a time; ValueError says what is wrong with the file."""
    parsed = iterparse(io.StringIO(read_text(path, within=root)), events=("start", "end"), forbid_dtd=True)
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


def _film(root: Path, image: Element) -> Record:
    """The film of an image, wherever an export of a project or a task has it, or beside the XML."""
    name, subset = image.get("name"), image.get("subset")
    if not name:
        raise ValueError("name is missing; it must be the name of the film")
    folders = [f"{IMAGES}/{subset}"] if subset else []
    return named_film(root, name, {}, [*folders, IMAGES, ""])


def _pixels(text: str | None) -> float:
    """A side of an image, nan where it is no number."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _corners(shape: Element) -> list[Corner]:
    """The corners that a shape gives; ValueError says why it gives none."""
    label = shape.get("label") or ""
    if shape.tag == "points":
        return [_corner(*parse_corner(label), shape)]
    level, corners, faults = parse_level(label), [], Faults()
    for element in shape:
        if element.tag in NO_SHAPES:
            continue
        if element.tag != "points":
            raise ValueError(f"its elements must be points, got {element.tag}")
        name = element.get("label") or ""
        with faults.at(f"point {name!r}"):
            corners.append(_corner(*parse_corner(f"{level}.{name}"), element))
    faults.raise_all()
    return corners


def _corner(level: str, name: str, point: Element) -> Corner:
    outside, occluded = (point.get(flag, "0") for flag in ("outside", "occluded"))
    if outside not in ("0", "1") or occluded not in ("0", "1"):
        raise ValueError(f"outside and occluded must be 0 or 1, got {outside!r}, {occluded!r}")
    if outside == "1":  # CVAT gives a hidden point a place, which means nothing
        return Corner(level, name, math.nan, math.nan, HIDDEN[occluded])
    text = point.get("points") or ""
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError as error:
        raise ValueError(f"points must be one x,y in pixels, got {short(text)}") from error
    if not (abs(x) <= MAX_NUMBER and abs(y) <= MAX_NUMBER):  # true for NaN
        raise ValueError(f"points must be pixels, up to {MAX_NUMBER:.0f}, got {short(text)}")
    return Corner(level, name, x, y)
