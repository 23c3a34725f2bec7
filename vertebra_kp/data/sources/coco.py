"""COCO keypoints: one JSON with films, keypoint names and corners, as most annotation tools export it.

Format: https://cocodataset.org/#format-data (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV
2014); it has no licence of its own, the films keep theirs. Layout::

    annotations.json      or any other name, if it is the only *.json in the folder
    films                 anywhere below the folder

    {"images": [{"id": 1, "file_name": "a.png", "patient": "P7", "spacing_mm": 0.143}],
     "categories": [{"id": 3, "name": "L1", "keypoints": ["TL", "TR", "BL", "BR"]}],
     "annotations": [{"image_id": 1, "category_id": 3, "keypoints": [311.5, 107, 2, 354, 99.5, 2, ...]}]}

A category is a level, its keypoints the corners TL, TR, BL, BR in any order; or it is a whole spine (of any
name), its keypoints ``L1.TL``, ``L1.TR``, ... Annotations of other categories are left out, which a warning says.
A keypoint is ``x, y, v``: pixel indices, so the centre of the
first pixel is (0, 0), and v = 0 for unlabelled, 1 or 2 (hidden, visible) for labelled. ``file_name`` is relative
to the folder; ``width`` and ``height``, if they are there, must be the film's. As CVAT unpacks its export, with
the films of each subset in a folder of its own, it is read too::

    annotations/person_keypoints_default.json
    images/default/a.png

``patient`` and ``spacing_mm`` (the size of a pixel) are extras of this project and may be missing;
groups are patients. Fields not named here are not read.
"""

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from reprlib import repr as short
from typing import TypeVar

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.names import corner_name, is_vertebral, parse_corner, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, check_size, named_film, read_annotations
from vertebra_kp.data.sources.files import read_json
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import MAX_NUMBER, number_of, numbers_of, of_kind

ANNOTATIONS = "annotations.json"
SUBSETS, SUBSET_PREFIX, IMAGES = "annotations", "person_keypoints_", "images"  # as CVAT exports them
VISIBILITIES = (0, 1, 2)

Parsed = TypeVar("Parsed")
Id = int | str  # of an entry
Entry = dict[str, object]
Keypoints = list[tuple[str, str]]  # (level, corner) of each


def read_records(root: Path, schema: Schema) -> list[Record]:
    reading, documents = Reading(), _read_documents(root)
    for path, content in documents:
        if not isinstance(content, dict):
            raise SourceError(
                f"{path} must be an object with images, categories and annotations, got {short(content)}; "
                "export it as COCO keypoints"
            )
        file = "" if len(documents) == 1 else f"{path.name}: "
        _read_document(root, schema, path.stem.removeprefix(SUBSET_PREFIX), file, content, reading)
    where = documents[0][0] if len(documents) == 1 else root / SUBSETS
    empty = f"{where} has no labelled corner; label films and export it again"
    return reading.finish(where, "correct these entries", empty=empty)


def _read_documents(root: Path) -> list[tuple[Path, object]]:
    """The file in ``root``, or those of every subset in ``annotations``, with the JSON in them."""
    subsets = [] if any(root.glob("*.json")) else sorted((root / SUBSETS).glob(f"{SUBSET_PREFIX}*.json"))
    if not subsets:
        return [read_annotations(root, ANNOTATIONS)]
    try:
        return [(path, read_json(path, within=root)) for path in subsets]
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error


def _read_document(root: Path, schema: Schema, subset: str, file: str, content: Entry, reading: Reading) -> None:
    """The films of one ``file``, which begins the places in it, and their corners."""
    folders = ("", f"{IMAGES}/{subset}", IMAGES, subset)

    def read_film(entry: Entry, place: str) -> Record:
        film = named_film(root, entry.get("file_name"), entry, folders)
        check_size(film, entry.get("height"), entry.get("width"))
        return reading.new(film, place)

    annotations = list(_entries(reading, file, content, "annotations"))
    labelled = {short(entry.get("category_id")) for _, entry in annotations if entry.get("keypoints")}

    def read_category(entry: Entry, place: str) -> Keypoints:
        return _read_category(entry) if short(entry["id"]) in labelled else []

    categories = _by_id(reading, file, content, "categories", read_category)
    films = _by_id(reading, file, content, "images", read_film)
    corners: dict[Id, list[Corner]] = {image: [] for image in films}
    for place, entry in annotations:
        with reading.at(place):
            image = _known_id(entry, "image_id", films, "images")
            category = _known_id(entry, "category_id", categories, "categories")
            names, keypoints = categories[category], entry.get("keypoints")
            if names and keypoints:
                corners[image] += _labelled_corners(keypoints, names)
            elif names is not None:
                reading.leave_out(f"annotations of category {short(category)} without corners", place)
    for image, film in films.items():
        if film is not None and corners[image]:
            with reading.at(film.id):
                reading.add(film, Labels(schema, corners[image]))


def _entries(reading: Reading, file: str, content: Entry, key: str) -> Iterator[tuple[str, Entry]]:
    """(place in the file, entry) of every object of a list."""
    entries = content.get(key)
    if not isinstance(entries, list):
        reading.found.append(f"{file}{key} must be a list, got {short(entries)}; export it as COCO keypoints")
        return
    for index, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield f"{file}{key}[{index}]", entry
        else:
            reading.found.append(f"{file}{key}[{index}] must be an object, got {short(entry)}")


def _by_id(
    reading: Reading, file: str, content: Entry, key: str, parse: Callable[[Entry, str], Parsed]
) -> dict[Id, Parsed | None]:
    """What ``parse`` makes of every entry of a list and its place, by id; None where that is wrong."""
    found: dict[Id, Parsed | None] = {}
    for place, entry in _entries(reading, file, content, key):
        with reading.at(place):
            id = entry.get("id")
            if isinstance(id, bool) or not isinstance(id, int | str):
                raise ValueError(f"id must be a whole number or a text, got {short(id)}")
            if id in found:
                raise ValueError(f"id {short(id)} stands above already; ids are unique")
            found[id] = None  # known: annotations of it are no faults of their own
            found[id] = parse(entry, place)
    return found


def _known_id(entry: Entry, field: str, known: Container[Id], where: str) -> Id:
    key = entry.get(field)
    if not isinstance(key, int | str) or key not in known:
        raise ValueError(f"{field} {short(key)} is no id in {where}; take the annotation out or add the entry")
    return key


def _read_category(entry: Entry) -> Keypoints:
    """(level, corner) of a category's keypoints, by either convention; none where it is no vertebra."""
    category, names = entry.get("name"), entry.get("keypoints")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"keypoints of {short(category)} must be names like TL or L1.TL, got {short(names)}")
    corners = [name.strip().upper() for name in names]
    if not any(name in CORNERS or is_vertebral(name) for name in corners):
        return []
    if not set(corners) <= set(CORNERS):
        return [parse_corner(name) for name in names]
    level = parse_level(of_kind(category, str, f"name must be the level of {', '.join(corners)}"))
    return [(level, corner) for corner in corners]


def _labelled_corners(keypoints: object, names: Keypoints) -> list[Corner]:
    """The corners of one annotation that are labelled."""
    if not isinstance(keypoints, list) or len(keypoints) != 3 * len(names):
        raise ValueError(f"keypoints must be {3 * len(names)} numbers, x, y, v of each, got {short(keypoints)}")
    corners, faults = list[Corner](), Faults()
    for i, (level, corner) in enumerate(names):
        x, y, v = keypoints[3 * i : 3 * i + 3]
        with faults.at():
            if number_of(v) not in VISIBILITIES:
                raise ValueError(f"v of {corner_name(level, corner)} must be 0, 1 or 2, got {short(v)}")
            if v:
                wanted = f"x, y of {corner_name(level, corner)} must be pixel indices up to {MAX_NUMBER:g}"
                xy = points_from_indices(np.array(numbers_of([x, y], 2, wanted)))
                corners.append(Corner(level, corner, float(xy[0]), float(xy[1])))
    faults.raise_all()
    return corners
