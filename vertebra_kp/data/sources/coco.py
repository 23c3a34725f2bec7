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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from vertebra_kp.anatomy import CORNERS, Schema, State
from vertebra_kp.data.names import corner_name, parse_corner, parse_level
from vertebra_kp.data.record import Record, label_arrays
from vertebra_kp.data.sources.files import film_inside, read_json
from vertebra_kp.data.sources.problems import SourceError, raise_if_any
from vertebra_kp.geometry import points_from_indices

ANNOTATIONS = "annotations.json"
VISIBILITIES = (0, 1, 2)
MAX_NUMBER = 1e6  # pixels, percent, mm: no film is larger, and float32 still holds it

Corner = tuple[str, str, float, float]  # level, corner, x and y in continuous image coordinates


@dataclass(frozen=True)
class Film:
    """A film that an annotation file names, and what the file says of it besides corners."""

    id: str
    path: Path
    group: str
    spacing_mm: float | None


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
        try:
            if film is not None and corners[image]:
                records.append(film_record(film, corners[image], schema))
        except ValueError as error:
            problems.append(f"{film.id}: {error}")
    raise_if_any(problems, path, "correct these entries")
    if not records:
        raise SourceError(f"{path} has no labelled corner; label films and export it again")
    return sorted(records, key=lambda record: record.id)


# --- what other JSON formats of annotation tools share ------------------------------------------


def annotation_file(root: Path, name: str) -> Path:
    """The file ``name`` in ``root``, or the only other JSON there; SourceError when there is none or a choice."""
    if (root / name).is_file():
        return root / name
    found = sorted(root.glob("*.json"))
    if len(found) == 1:
        return found[0]
    names = short([path.name for path in found]) if found else "none"
    raise SourceError(f"data.root must be a folder with {name} or one *.json, found {names} in {root}")


def read_annotations(root: Path, path: Path) -> Any:
    """The JSON in a file of ``root``; SourceError when it holds none or is a link that leads out."""
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{path} is a link to a place outside {root}; copy the file there")
        return read_json(path)
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error


def json_number(value: Any) -> float:
    """A JSON number as float; nan for what is none or is beyond ``MAX_NUMBER``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= MAX_NUMBER else math.nan


def named_film(root: Path, file: Any, extras: dict[str, Any]) -> Film:
    """The film ``file`` in ``root``, with ``patient`` and ``spacing_mm`` of ``extras``.

    ValueError says what is wrong, OSError that the file system refuses the name.
    """
    if not isinstance(file, str):
        raise ValueError(f"the name of the film must be a text, got {short(file)}")
    path = film_inside(root, file)
    patient, spacing_mm = extras.get("patient"), extras.get("spacing_mm")
    if isinstance(patient, bool) or not isinstance(patient, str | int | None):
        raise ValueError(f"patient of {file} must be a text, a whole number or missing, got {short(patient)}")
    if spacing_mm is not None and not json_number(spacing_mm) > 0:
        raise ValueError(f"spacing_mm of {file} must be a number above 0 or missing, got {short(spacing_mm)}")
    film = path.relative_to(root).as_posix()
    group = "" if patient is None else str(patient).strip()
    return Film(film, path, group or film, None if spacing_mm is None else float(spacing_mm))


def film_record(film: Film, corners: Iterable[Corner], schema: Schema, notes: tuple[str, ...] = ()) -> Record:
    """A film with its corners; those not given are UNLABELLED, levels that the schema lacks are left out.

    ValueError names every corner that is given twice, does not exist, or lies beyond any film.
    """
    points, states = label_arrays(schema)
    given: set[str] = set()
    faults = []
    for level, corner, x, y in corners:
        name = corner_name(level, corner)
        place = (schema.levels.index(level), CORNERS.index(corner)) if level in schema.levels else None
        if name in given:
            faults.append(f"{name} is given twice; keep one")
        elif not max(abs(x), abs(y)) <= MAX_NUMBER:
            faults.append(f"{name} lies at ({x:g}, {y:g}), beyond any film")
        elif place and not schema.exists[place]:
            faults.append(f"{level} has no {corner} in {schema.name}; take {name} out")
        elif place:
            points[place] = x, y
            states[place] = State.LABELLED
        given.add(name)
    if faults:
        raise ValueError("; ".join(faults))
    return Record(
        id=film.id,
        image_path=film.path,
        group=film.group,
        points_xy_image=points,
        states=states,
        spacing_mm=film.spacing_mm,
        anterior_side="left" if schema.view == "LA" else None,
        notes=notes,
    )


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
        except (ValueError, OSError) as error:
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
            corners.append((level, corner, *map(float, points_from_indices(xy))))
    if faults:
        raise ValueError("; ".join(faults))
    return corners
