"""COCO keypoints: one JSON with films, keypoint names and corners, as most annotation tools export it.

Format: https://cocodataset.org/#format-data (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV
2014); it has no licence of its own, the films keep theirs. Layout::

    annotations.json      or any other name, if it is the only *.json in the folder
    films                 anywhere below the folder

    {"images": [{"id": 1, "file_name": "a.png", "patient": "P7", "spacing_mm": 0.143}],
     "categories": [{"id": 3, "name": "L1", "keypoints": ["TL", "TR", "BL", "BR"]}],
     "annotations": [{"image_id": 1, "category_id": 3, "keypoints": [311.5, 107, 2, 354, 99.5, 2, ...]}]}

A category is a level, its keypoints the corners TL, TR, BL, BR in any order; or it is a whole spine (of any
name), its keypoints ``L1.TL``, ``L1.TR``, ... A keypoint is ``x, y, v``: pixel indices, so the centre of the
first pixel is (0, 0), and v = 0 for unlabelled, 1 or 2 (hidden, visible) for labelled. ``file_name`` is relative
to the folder. ``patient`` and ``spacing_mm`` (the size of a pixel) are extras of this project and may be missing;
a film without a patient is a group of its own. Fields not named here are not read. Corners that are not given
are unlabelled, levels that the keypoint schema lacks are left out, films without a labelled corner are skipped.
Lateral films have their anterior side at the left of the image.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.names import corner_name, parse_corner, parse_level
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import (
    MAX_NUMBER,
    Corner,
    Film,
    annotation_file,
    film_record,
    json_number,
    labels_of,
    named_film,
    read_annotations,
)
from vertebra_kp.data.sources.problems import SourceError, raise_if_any

ANNOTATIONS = "annotations.json"
VISIBILITIES = (0, 1, 2)


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Films that have labels, ids are their paths relative to ``root``, groups are patients.

    Raises SourceError for a missing or unreadable JSON, and one that lists every entry that is wrong.
    """
    root = root.expanduser()
    path = annotation_file(root, ANNOTATIONS)
    content = read_annotations(root, path)
    if not isinstance(content, dict):
        raise SourceError(
            f"{path} must be an object with images, categories and annotations, got {short(content)}; "
            "export it as COCO keypoints"
        )
    problems: list[str] = []
    categories = _read_categories(content, problems)
    films = _read_images(root, content, problems)
    corners = _read_annotations(content, categories, films, problems)
    records = []
    for image, film in films.items():
        if film is None or not corners[image]:
            continue
        try:
            records.append(film_record(film, labels_of(corners[image], schema)))
        except ValueError as error:
            problems.append(f"{film.id}: {error}")
    raise_if_any(problems, path, "correct these entries")
    if not records:
        raise SourceError(f"{path} has no labelled corner; label films and export it again")
    return sorted(records, key=lambda record: record.id)


# --- the lists of a COCO file: what is wrong with an entry goes to ``problems`` ------------------


def _read_categories(content: dict[str, Any], problems: list[str]) -> dict[Any, list[tuple[str, str]] | None]:
    """(level, corner) of every keypoint of every category, by id; None where it is wrong."""
    categories: dict[Any, list[tuple[str, str]] | None] = {}
    for place, entry in _entries(content, "categories", problems):
        try:
            key = _new_id(entry, categories)
            categories[key] = None  # known: its annotations are no faults of their own
            categories[key] = _parse_keypoint_names(entry.get("name"), entry.get("keypoints"))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    return categories


def _read_images(root: Path, content: dict[str, Any], problems: list[str]) -> dict[Any, Film | None]:
    """Every film by id; None where it is wrong."""
    films: dict[Any, Film | None] = {}
    seen: set[str] = set()
    for place, entry in _entries(content, "images", problems):
        try:
            key = _new_id(entry, films)
            films[key] = None
            film = named_film(root, entry.get("file_name"), entry)
            if film.id in seen:
                raise ValueError(f"film {film.id} stands above already; keep one")
            seen.add(film.id)
            films[key] = film
        except ValueError as error:
            problems.append(f"{place}: {error}")
    return films


def _read_annotations(
    content: dict[str, Any],
    categories: dict[Any, list[tuple[str, str]] | None],
    films: dict[Any, Film | None],
    problems: list[str],
) -> dict[Any, list[Corner]]:
    """Labelled corners of every film, by the id of its image."""
    corners: dict[Any, list[Corner]] = {image: [] for image in films}
    for place, entry in _entries(content, "annotations", problems):
        try:
            image = _known_id(entry, "image_id", films, "images")
            category = categories[_known_id(entry, "category_id", categories, "categories")]
            if category is not None:
                corners[image] += _labelled_corners(entry.get("keypoints"), category)
        except ValueError as error:
            problems.append(f"{place}: {error}")
    return corners


def _entries(content: dict[str, Any], key: str, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place in the file, entry) of every object of a list."""
    entries = content.get(key)
    if not isinstance(entries, list):
        problems.append(f"{key} must be a list, got {short(entries)}; export it as COCO keypoints")
        return
    for index, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield f"{key}[{index}]", entry
        else:
            problems.append(f"{key}[{index}] must be an object, got {short(entry)}")


def _new_id(entry: dict[str, Any], known: dict[Any, Any]) -> int | str:
    key = entry.get("id")
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise ValueError(f"id must be a whole number or a text, got {short(key)}")
    if key in known:
        raise ValueError(f"id {short(key)} stands above already; ids are unique")
    return key


def _known_id(entry: dict[str, Any], field: str, known: dict[Any, Any], where: str) -> Any:
    key = entry.get(field)
    if isinstance(key, list | dict) or key not in known:
        raise ValueError(f"{field} {short(key)} is no id in {where}; take the annotation out or add the entry")
    return key


def _parse_keypoint_names(category: Any, names: Any) -> list[tuple[str, str]]:
    """(level, corner) of a category's keypoints, by either convention."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"keypoints of {short(category)} must be names like TL or L1.TL, got {short(names)}")
    corners = [name.strip().upper() for name in names]
    if not set(corners) <= set(CORNERS):
        return [parse_corner(name) for name in names]
    if not isinstance(category, str):
        raise ValueError(f"name must be the level of {', '.join(corners)}, got {short(category)}")
    level = parse_level(category)
    return [(level, corner) for corner in corners]


def _labelled_corners(keypoints: Any, names: list[tuple[str, str]]) -> list[Corner]:
    """The corners of one annotation that are labelled."""
    if not isinstance(keypoints, list) or len(keypoints) != 3 * len(names):
        raise ValueError(f"keypoints must be {3 * len(names)} numbers, x, y, v of each, got {short(keypoints)}")
    corners: list[Corner] = []
    faults = []
    for i, (level, corner) in enumerate(names):
        x, y, v = keypoints[3 * i : 3 * i + 3]
        xy = json_number(x), json_number(y)
        if json_number(v) not in VISIBILITIES:
            faults.append(f"v of {corner_name(level, corner)} must be 0, 1 or 2, got {short(v)}")
        elif v and any(map(math.isnan, xy)):
            faults.append(
                f"x, y of {corner_name(level, corner)} must be pixel indices up to {MAX_NUMBER:g}, "
                f"got {short(x)}, {short(y)}"
            )
        elif v:
            point = points_from_indices(np.array(xy))
            corners.append(Corner(level, corner, float(point[0]), float(point[1])))
    if faults:
        raise ValueError("; ".join(faults))
    return corners
