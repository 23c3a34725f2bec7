"""AASCE 2019 / SpineWeb data set 16: AP films of the whole spine, corners of T1..L5, three Cobb angles.

Wu et al., "Automatic Landmark Estimation for Adolescent Idiopathic Scoliosis Assessment Using X-ray
Images", MICCAI 2017. Layout::

    boostnet_labeldata/data/<training|test>/NAME.jpg
    boostnet_labeldata/labels/<training|test>/NAME.jpg.mat     p2: 68 x 2, (x, y)
    boostnet_labeldata/labels/<training|test>/{filenames,angles}.csv

``p2`` holds whole numbers written by Matlab. ``landmarks.csv`` is the same numbers divided by width and
height, so the files do not tell whether counting starts at 0 or 1; as Matlab counts from 1, so does this
reader: the first pixel is (1, 1). Were it 0, every corner would be one pixel off in x and y, and no angle
or distance would change. In 18 training films T1 is stored
after L5; it is put first unless the stored order is asked for. Other errors of the labels stay as they are.
"""

import os
import re
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, Schema, State
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Labels, Reading
from vertebra_kp.data.sources.matlab import read_matrix
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.sources.values import is_pixel

ROOT_VARIABLE = "VERTEBRA_KP_AASCE"
FOLDER = "boostnet_labeldata"
PARTS = ("training", "test")
LEVELS = SCHEMAS["ap_whole_spine"].levels
MATLAB_FIRST_INDEX = 1

_CASE = re.compile(r"^sunhl-1th-\d{2}-[A-Z][a-z]{2}-\d{4}-(\d+) ")


def read_records(
    root: Path | None, schema: Schema, part: str = PARTS[0], *, stored_order: bool = False
) -> list[Record]:
    """Films of one part, ids are file names, groups are case numbers.

    ``root`` is ``boostnet_labeldata`` or the folder that holds it; None asks the environment variable
    VERTEBRA_KP_AASCE. ``stored_order`` leaves T1 last in the films that store it so. Raises SourceError for
    a missing layout, and one that lists every film whose labels are missing, unreadable, not 68 points or
    not finite.
    """
    if schema.view != "AP" or not set(schema.levels) <= set(LEVELS):
        raise SourceError(
            f"aasce has AP films with {LEVELS[0]}..{LEVELS[-1]}, anatomy {schema.name} needs others; "
            "set data.anatomy to ap_whole_spine or ap_lumbar"
        )
    root = find_root(root, part)
    label_folder = root / "labels" / part
    reading = Reading()
    for film in sorted((root / "data" / part).iterdir()):
        if film.suffix.lower() != ".jpg" or film.name.startswith("."):
            continue
        with reading.at(film.name):
            corners = _read_corners(label_folder / f"{film.name}.mat")
            height = corners[..., 1].mean(axis=1)
            if height[-1] < height[0] and not stored_order:  # T1 after L5: every level would be off by one
                corners = np.roll(corners, 1, axis=0)
            labels = Labels(schema)
            labels.points[:] = corners[[LEVELS.index(level) for level in schema.levels]]
            labels.states[:] = State.LABELLED
            reading.add(Record(film.name, film, case_group(film.name)), labels)
    remedy = "restore these labels from the data set, or take the films out"
    empty = f"{root / 'data' / part} holds no .jpg film; unpack the data set there"
    return reading.finish(label_folder, remedy, empty=empty)


def case_group(name: str) -> str:
    """Case number of a film, the same under every date; the film itself where the name has none."""
    case = _CASE.match(name)
    return case.group(1) if case else Path(name).stem


def find_root(root: Path | None, part: str = PARTS[0]) -> Path:
    """The folder ``boostnet_labeldata`` from what the user named: it, its parent, the environment."""
    if part not in PARTS:
        raise SourceError(f"part of aasce must be one of {', '.join(PARTS)}, got {part!r}")
    if root is None:
        if not os.environ.get(ROOT_VARIABLE):
            raise SourceError(f"aasce needs the folder {FOLDER}: set data.root, or the variable {ROOT_VARIABLE}")
        root = Path(os.environ[ROOT_VARIABLE])
    root = Path(root).expanduser()
    for candidate in (root, root / FOLDER):
        if all((candidate / kind / part).is_dir() for kind in ("data", "labels")):
            return candidate
    raise SourceError(
        f"{root} has no data/{part} and labels/{part} of AASCE; name the folder {FOLDER} that holds them "
        f"by data.root or {ROOT_VARIABLE}"
    )


def _read_corners(path: Path) -> np.ndarray:
    """Corners ``[17, 4, 2]`` in continuous coordinates; ValueError says what is wrong with the file."""
    if not path.is_file():
        raise ValueError(f"film without labels, {path.name} is missing")
    try:
        indices = read_matrix(path, "p2")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read as Matlab labels p2: {error}") from error
    wanted = (len(LEVELS) * len(CORNERS), 2)
    if indices.shape != wanted:
        raise ValueError(f"{path.name} has p2 of shape {indices.shape}, wanted {wanted}")
    indices = indices.astype(np.float64)  # stored as uint16, which would wrap around below 0
    if not (on_film := is_pixel(indices)).all():
        raise ValueError(f"{path.name} has {int((~on_film).sum())} points that are NaN or beyond any film")
    return points_from_indices(indices - MATLAB_FIRST_INDEX).reshape(len(LEVELS), len(CORNERS), 2)
