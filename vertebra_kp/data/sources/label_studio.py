"""Label Studio: its JSON export of keypoint labels, and tasks with predictions that wait for correction.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/tags/keypointlabels (Label Studio is under
Apache 2.0; films and labels keep the licence of their makers). Layout::

    tasks.json            or any other name, if it is the only *.json in the folder (export "JSON", not "JSON-MIN")
    films

    [{"data": {"image": "/data/upload/7/0f3a9c21-a.png", "patient": "P7", "spacing_mm": 0.143},
      "annotations": [{"was_cancelled": false, "result": [
        {"type": "keypointlabels", "original_width": 1200, "original_height": 3000, "image_rotation": 0,
         "value": {"x": 26.04, "y": 3.6, "width": 0.5, "keypointlabels": ["L1.TL"]}}]}]}]

Labels are ``L1.TL``. ``x, y`` are percent of the film as displayed, 0 at its left and upper edge and 100 at the
right and lower one, so x / 100 * width is a continuous coordinate. ``original_width`` and ``original_height`` may
be those of the film in other pixels, but not of another shape. The labelling config names the film ``$image``;
``film``, ``patient`` and ``spacing_mm`` (the size of a pixel) are extras of this project and may be missing.

**Which film.** ``film``, if it is there, is the path relative to the folder. Otherwise ``image`` is one of

- a plain path, relative to the folder: that film, and no other is looked for;
- ``/data/local-files/?d=some/folder/a.png``, a path below Label Studio's document root, percent-encoded: the first
  that the folder has of ``some/folder/a.png``, ``folder/a.png``, ``a.png``;
- ``/data/upload/7/0f3a9c21-a.png``: likewise, and last ``a.png`` without the eight digits that Label Studio puts
  before the name of an uploaded file (it also replaces spaces: rename the film if need be).

Other addresses are errors, and so are two tasks of one film.

**Which labels.** Where the file has annotations, they are read and predictions are not: what a model said never
slips in among people's labels. Several annotations of a task that are not cancelled are an error. A file without
any annotation is one of pre-annotations: its predictions are read, one a task, and every record says so in its
notes. Left out, which a warning says: tasks that are skipped or not labelled yet, regions that are no keypoints
(choices, rectangles), and keypoints of another name; misspelled names of corners are errors.
"""

import os
import re
from math import isclose
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from urllib.parse import parse_qs, unquote, urlsplit

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.names import corner_name, is_vertebral, parse_corner
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import (
    PREDICTED,
    Corner,
    Labels,
    Reading,
    named_film,
    other_size,
    read_annotations,
    shown_size,
)
from vertebra_kp.data.sources.files import forward_slashes, on_disk
from vertebra_kp.data.sources.problems import Faults, SourceError
from vertebra_kp.data.sources.values import number_of, numbers_of, of_kind

TASKS = "tasks.json"
LOCAL_FILES = "/data/local-files/"
UPLOAD = "/data/upload/"
KEYPOINT = "keypointlabels"
SAME_SHAPE = 0.01  # of the sides' ratio: a smaller copy of a film has whole pixels, too
MAX_PATH = 4096  # characters; file systems hold no longer path

_UPLOADED_NAME = re.compile(r"^[0-9a-f]{8}-(.+)$")


def read_records(root: Path, schema: Schema) -> list[Record]:
    path, tasks = read_annotations(root, TASKS)
    if not isinstance(tasks, list) or not tasks:
        raise SourceError(f"{path} must be a list of tasks, got {short(tasks)}; export the project as JSON")
    annotated = any(isinstance(task, dict) and task.get("annotations") for task in tasks)
    kind = "annotations" if annotated else "predictions"
    reading = Reading()
    for index, task in enumerate(tasks):
        place = f"[{index}] task {short(task['id'])}" if isinstance(task, dict) and "id" in task else f"[{index}]"
        with reading.at(place):
            if not isinstance(task, dict) or not isinstance(data := task.get("data"), dict):
                raise ValueError(f"a task is an object with data, got {short(task)}; export JSON, not JSON-MIN")
            regions = _regions(task, kind)
            if regions is None:
                reading.leave_out("tasks that nobody has labelled", place)
                continue
            name = data["film"] if "film" in data else film_name(root, data.get("image"))
            film = reading.new(named_film(root, name, data), place)
            if corners := _read_corners(film, regions, kind, reading):
                reading.add(film, Labels(schema, corners), (PREDICTED,) if kind == "predictions" else ())
    empty = f"{path} has no labelled corner; label films and export it again"
    return reading.finish(path, "correct these tasks and export them again", empty=empty)


def film_name(root: Path, image: object) -> str:
    """The film of a task's ``image``, relative to ``root``, looked for as the head of this file says."""
    if not isinstance(image, str) or not image or len(image) > MAX_PATH:
        raise ValueError(f"data.image must be the film's path, got {short(image)}; the config names it $image")
    if image.startswith(LOCAL_FILES):
        name = parse_qs(urlsplit(image).query).get("d", [""])[-1]
    elif image.startswith(UPLOAD):
        name = unquote(image.removeprefix(UPLOAD))
    elif "://" in image:
        raise ValueError(f"data.image is an address, {short(image)}; copy the film to {root} and write its name")
    else:
        return image
    parts = PurePosixPath(forward_slashes(name).lstrip("/")).parts
    if not parts or ".." in parts:
        raise ValueError(f"data.image must lead to a film below the folder, got {short(image)}")
    names = ["/".join(parts[i:]) for i in range(len(parts))]
    if image.startswith(UPLOAD) and (uploaded := _UPLOADED_NAME.match(parts[-1])):
        names.append(uploaded[1])
    for name in names:
        if os.path.isfile(on_disk(root / name)):  # unlike Path.is_file, False for names that are too long
            return name
    raise ValueError(f"film {names[-1]!r} of {short(image)} is not in {root}; copy it there, or take the task out")


def _read_corners(film: Record, regions: list[object], kind: str, reading: Reading) -> list[Corner]:
    corners, faults, shown = [], Faults(), shown_size(film)
    for index, value in enumerate(regions):
        with faults.at(f"result[{index}]"):
            region = of_kind(value, dict, "a region must be an object")
            region_type = of_kind(region.get("type"), str, "type must be a text")
            labels = _value(region).get(KEYPOINT)
            if region_type != KEYPOINT:
                reading.leave_out(f"{region_type} regions", film.id)
                continue
            if isinstance(labels, list) and labels and not any(map(is_vertebral, labels)):
                reading.leave_out(f"{region_type} regions {short(labels)}", film.id)
                continue
            corner, stated = _parse_region(region)
            if shown is not None and not isclose(stated[0] * shown[1], stated[1] * shown[0], rel_tol=SAME_SHAPE):
                raise other_size(film, stated, shown)
            height, width = shown or stated
            corners.append(corner._replace(x=corner.x / 100 * width, y=corner.y / 100 * height))
    if faults.found:
        raise ValueError(f"{kind} of {film.id}: {'; '.join(faults.found)}")
    return corners


def _regions(task: dict[str, object], kind: str) -> list[object] | None:
    """The regions of the one answer that counts; None where there is none or the annotator skipped the film."""
    wanted = f"{kind} must be a list of objects"
    answers = [of_kind(answer, dict, wanted) for answer in of_kind(task.get(kind, []), list, wanted)]
    for answer in answers:
        if not isinstance(answer.get("was_cancelled"), bool | None):
            raise ValueError(f"was_cancelled must be true or false, got {short(answer['was_cancelled'])}")
    kept = [answer for answer in answers if not answer.get("was_cancelled")]
    if not kept:
        return None
    if len(kept) > 1:
        raise ValueError(f"{len(kept)} {kind} that are not cancelled, wanted one; keep the right one")
    return of_kind(kept[0].get("result"), list, "result must be a list")


def _value(region: dict[str, object]) -> dict[str, object]:
    return value if isinstance(value := region.get("value"), dict) else {}


def _parse_region(region: dict[str, object]) -> tuple[Corner, tuple[float, float]]:
    """The corner of one keypoint, in percent, and the film's height and width as they are stated."""
    value = _value(region)
    labels = value.get(KEYPOINT)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError(f"{KEYPOINT} must be one label like L1.TL, got {short(labels)}")
    level, corner = parse_corner(labels[0])
    faults = Faults()
    with faults.at():
        wanted = "original_width, original_height must be the film's size in pixels"
        given = [region.get("original_width"), region.get("original_height")]
        width, height = size = numbers_of(given, 2, wanted)
        if min(size) <= 0:
            raise ValueError(f"{wanted}, got {short(given)}")
    with faults.at():
        if number_of(region.get("image_rotation", 0)) != 0:
            raise ValueError(
                f"image_rotation must be 0, got {short(region['image_rotation'])}; turn the film back"
            )
    with faults.at():
        x, y = numbers_of([value.get("x"), value.get("y")], 2, "x, y must be percent of the film")
    if faults.found:
        raise ValueError(f"{corner_name(level, corner)}: {'; '.join(faults.found)}")
    return Corner(level, corner, x, y), (height, width)
