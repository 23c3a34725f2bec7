"""Mendeley Data 5jdfdgp762, "Spondylolisthesis Vertebral Landmark": lateral lumbar films, corners of vertebrae.

Reyes, version 1 (2025), https://doi.org/10.17632/5jdfdgp762.1, CC BY 4.0: 716 films, 208 from a hospital in
Honduras and 508 of BUU-LSPINE, whose own terms may hold for those. ``without_buu_lspine`` takes out films that a
copy of BUU-LSPINE has too: do so before the two are mixed. Layout::

    Train/Keypointrcnn_data/images/{train,val}/NAME.jpg      494 and 204 films, 640 x 640
    Train/Keypointrcnn_data/labels/{train,val}/NAME.json     339 and 145
    Train/Keypointrcnn_data/labels/{train,val}/NAME.txt      155 and 59
    Test/                                                    16 films without labels, not read

    {"boxes": [[331, 1, 405, 37], ...], "labels": [0, ...],
     "keypoints": [[[331, 28, 1], [396, 37, 1], [357, 1, 1], [405, 9, 1]], ...]}

    0 0.575 0.030 0.116 0.056 0.558 0.002 1 0.517 0.044 1 0.619 0.058 1 0.633 0.014 1

A JSON holds four corners ``x, y, v`` of every vertebra in pixel indices; a line of text the same of one vertebra,
as fractions of the film's width and height, after its class and the centre and size of its box. v = 0 is
unlabelled, 1 or 2 labelled. NAME ends as Roboflow names what it exports: ``3209-F-073Y1_jpg.rf.`` and 32
hexadecimal digits. Films of one name before that, and of one patient (``3209`` of BUU-LSPINE, as its own reader
groups them, ``N24`` of Honduras), are a group.

No copy was at hand. Layout, keys and names are those that three public programs that read the data set show, one
of them with a whole label. What they leave open is checked in every film:

- *Order of corners*: the programs report several. Of those in ``ORDERS`` exactly one makes a convex vertebra go
  clockwise from its top left corner; it must be the same for all vertebrae of a film.
- *Levels*: no label names one. Each visible vertebra is labelled, 4 to 11 a film, the sacrum is the lowest. So
  levels are counted upwards from S1, which is known by its shape: of the lowest two it alone tapers downwards
  (``TAPER``). Steps from one to the next must be even (``MAX_STEP``), or a vertebra is missing. Corners below S1's
  endplate are left out.

A film that fails is left out, and a warning counts and names such films: nobody can tell its levels. Every record
says in its notes that its levels are counted. A label that is not of this form is an error.

The anterior side is the one to which S1's endplate falls. The films seem to be squashed to squares, not padded:
L1..L5 of the published label are 1.6 to 1.9 times as wide as high. Angles and slips are those of a squashed film.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, LEVELS, Schema, Side
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.images import film_size
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources.annotations import Corner, Labels, Reading, is_clockwise, named_film
from vertebra_kp.data.sources.files import read_json, read_text
from vertebra_kp.data.sources.problems import SourceError, some
from vertebra_kp.data.sources.values import numbers_of

log = logging.getLogger(__name__)

PARTS = ("train", "val")
LAYOUT = "Train/Keypointrcnn_data"
PLACES = (".", "Keypointrcnn_data", LAYOUT, f"Dataset/{LAYOUT}")  # below data.root
SUFFIXES = (".jpg", ".jpeg", ".png")
LOWEST = "S1"
# Which stored point is TL, TR, BL, BR
ORDERS = {"BL, BR, TL, TR": (2, 3, 0, 1), "TL, BL, BR, TR": (0, 3, 1, 2), "TL, TR, BL, BR": (0, 1, 2, 3)}
VISIBILITIES = (0, 1, 2)
COLUMNS = 5 + 3 * len(CORNERS)  # of a line of text
FRACTIONS = (-1.0, 2.0)  # of the film: well off its edges, but no pixels
# Lower over upper edge: S1 has 0.59 in the published label, its L1..L5 have 0.98 to 1.12.
TAPER = 0.85
MAX_STEP = 1.6  # times the step before or after; 1.24 in the published label, about 2 where one is missing
COUNTED = "levels are counted upwards from the lowest vertebra: the data set names none"

_EXPORTED = re.compile(r"(?:_(?:jpe?g|png))?\.rf\.[0-9a-f]{32}$")
_BUU_LSPINE = re.compile(r"^(\d+)-[MF]-\d+Y\d$")
_HONDURAS = re.compile(r"^([NF]\d+)-")


class _Unclear(Exception):
    """Why nobody can tell a film's levels."""


def read_records(root: Path, schema: Schema) -> list[Record]:
    """Films whose levels can be told; groups are patients. A film without labels is an error."""
    if schema.view != "LA" or LOWEST not in schema.levels:
        raise SourceError(f"mendeley holds lateral films with {LOWEST}, got anatomy {schema.name}; take la_lumbar")
    folder = _find_folder(root)
    reading, unclear = Reading(), []
    for part in PARTS:
        films = {path.stem: path for path in _files(folder / "images" / part, SUFFIXES)}
        labels: dict[str, list[Path]] = {name: [] for name in films}
        for path in _files(folder / "labels" / part, (".json", ".txt")):
            labels.setdefault(path.stem, []).append(path)
        for name, paths in sorted(labels.items()):
            try:
                with reading.at(f"{part}/{name}"):
                    if name not in films:
                        raise ValueError("label without a film")
                    if len(paths) != 1:
                        found = ", ".join(path.name for path in paths) or "none"
                        raise ValueError(f"wanted one label, found {found}")
                    _read_film(root, films[name], paths[0], schema, reading)
            except _Unclear as reason:
                unclear.append(f"{name} ({reason})")
    if unclear and not reading.found:
        log.warning("%s: levels of %d films cannot be told, they are left out: %s", folder, *some(unclear))
    remedy = "restore these from the data set, or take them out with their films"
    empty = f"{folder} holds no film whose levels can be told; unpack the data set there"
    return reading.finish(folder, remedy, empty=empty)


def original_name(name: str) -> str:
    """The film's name before Roboflow exported it: ``3209-F-073Y1`` of ``3209-F-073Y1_jpg.rf.b3686....jpg``."""
    file = Path(name)
    return _EXPORTED.sub("", file.stem if file.suffix.lower() in SUFFIXES else file.name)


def without_buu_lspine(records: Sequence[Record], folder: Path) -> list[Record]:
    """The records less those of films that ``folder``, a copy of BUU-LSPINE with AP/ and LA/, has too.

    Raises SourceError when the folder holds no such film.
    """
    known = {path.stem for view in ("AP", "LA") for path in (folder.expanduser() / view).glob("*")}
    known = {name for name in known if _BUU_LSPINE.match(name)}
    if not known:
        raise SourceError(f"{folder} holds no film of BUU-LSPINE; name the folder with AP/ and LA/")
    return [record for record in records if original_name(record.id) not in known]


def _find_folder(root: Path) -> Path:
    for place in PLACES:
        if (root / place / "images").is_dir() and (root / place / "labels").is_dir():
            return root / place
    raise SourceError(f"{root} has no {LAYOUT} with images and labels; data.root of mendeley is that folder")


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith("."))


def _read_film(root: Path, film: Path, label: Path, schema: Schema, reading: Reading) -> None:
    """ValueError says what is wrong with a label, _Unclear why it does not tell the levels."""
    name = original_name(film.name)
    patient = _BUU_LSPINE.match(name) or _HONDURAS.match(name)
    named = named_film(root, film.relative_to(root).as_posix(), {"patient": patient[1] if patient else name})
    if label.suffix.lower() == ".json":
        stored = _read_json_corners(read_json(label, within=root))
    else:
        stored = _read_text_corners(read_text(label, within=root), film_size(film))
    vertebrae = _in_order(stored)
    _check_levels(vertebrae)
    last = LEVELS.index(LOWEST) + 1
    corners = []
    for level, points in zip(LEVELS[last - len(vertebrae) : last], vertebrae, strict=True):
        known = [j for j in range(len(CORNERS)) if np.isfinite(points[j]).all()]
        if level == LOWEST:
            known = [j for j in known if j < 2]  # S1 has no endplate below
        corners += [Corner(level, CORNERS[j], float(points[j, 0]), float(points[j, 1])) for j in known]
    left, right = vertebrae[-1][:2, 1]
    side: Side = "left" if left > right else "right"
    reading.add(named, Labels(schema, corners), (COUNTED,), anterior_side=side)


def _read_json_corners(content: object) -> np.ndarray:
    """Corners ``[N, 4, 2]`` as stored, continuous coordinates, nan where unlabelled."""
    keypoints = content.get("keypoints") if isinstance(content, dict) else None
    boxes = content.get("boxes") if isinstance(content, dict) else None
    if not isinstance(keypoints, list) or not isinstance(boxes, list) or len(keypoints) != len(boxes):
        raise ValueError("must be an object with keypoints and boxes, lists of one entry per vertebra")
    vertebrae = []
    for number, points in enumerate(keypoints):
        wanted = f"keypoints[{number}] must be four points x, y, v"
        if not isinstance(points, list) or len(points) != len(CORNERS):
            raise ValueError(f"{wanted}, got {short(points)}")
        vertebrae += [numbers_of(point, 3, wanted) for point in points]
    return points_from_indices(_visible(np.reshape(vertebrae, (-1, len(CORNERS), 3))))


def _read_text_corners(text: str, size: tuple[int, int]) -> np.ndarray:
    """Corners ``[N, 4, 2]`` as stored, continuous coordinates of a film of that size, nan where unlabelled."""
    vertebrae = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(value) for value in line.split()]
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if len(values) != COLUMNS:
            raise ValueError(f"line {number} has {len(values)} numbers, wanted {COLUMNS}")
        vertebrae.append(values[5:])
    points = _visible(np.reshape(vertebrae, (-1, len(CORNERS), 3)))
    labelled = points[np.isfinite(points).all(axis=2)]
    if ((labelled < FRACTIONS[0]) | (labelled > FRACTIONS[1])).any():
        raise ValueError("corners must be fractions of the film's width and height")
    height, width = size
    return points * (width, height)


def _visible(points: np.ndarray) -> np.ndarray:
    """Points ``[N, 4, 2]`` of ``x, y, v``, nan where v is 0."""
    visibility = points[..., 2]
    if not np.isin(visibility, VISIBILITIES).all():
        raise ValueError(f"v must be 0, 1 or 2, got {short(sorted(set(visibility.ravel().tolist())))}")
    xy = points[..., :2]
    if not np.isfinite(xy[visibility > 0]).all():
        raise ValueError("x, y of a labelled corner must be finite numbers")
    return np.where(visibility[..., None] > 0, xy, np.nan)


def _in_order(stored: np.ndarray) -> np.ndarray:
    """Vertebrae ``[N, 4, 2]`` from head to foot, corners TL, TR, BL, BR; _Unclear when there is no such order."""
    whole = stored[np.isfinite(stored).all(axis=(1, 2))]
    orders = [list(order) for order in ORDERS.values()]
    fitting = [order for order in orders if all(_is_upright(points[order]) for points in whole)]
    if len(whole) == 0:
        raise _Unclear("no vertebra has four labelled corners")
    if len(fitting) != 1:
        raise _Unclear(f"its corners are in none of the orders {'; '.join(ORDERS)}")
    vertebrae = stored[:, fitting[0]]
    if not np.isfinite(vertebrae).any(axis=(1, 2)).all():
        raise _Unclear("a vertebra has no labelled corner")
    return vertebrae[np.argsort(np.nanmean(vertebrae[..., 1], axis=1), kind="stable")]


def _is_upright(points: np.ndarray) -> bool:
    """Whether TL, TR, BL, BR go clockwise round a convex body whose edges run from left to right."""
    top_left, top_right, bottom_left, bottom_right = points
    left_to_right = top_left[0] < top_right[0] and bottom_left[0] < bottom_right[0]
    return bool(left_to_right) and is_clockwise(np.stack((top_left, top_right, bottom_right, bottom_left)))


def _check_levels(vertebrae: np.ndarray) -> None:
    """_Unclear unless the lowest vertebra is S1, and the others follow without a gap."""
    if not 2 <= len(vertebrae) <= LEVELS.index(LOWEST) + 1:
        raise _Unclear(f"it has {len(vertebrae)} vertebrae")
    upper, lower = (np.linalg.norm(vertebrae[:, j + 1] - vertebrae[:, j], axis=1) for j in (0, 2))
    tapers = lower[-2:] < TAPER * upper[-2:]  # false where a corner is unlabelled
    if not (tapers[-1] and not tapers[-2]):
        raise _Unclear(f"its lowest vertebra, and no other, must taper downwards to be {LOWEST}")
    steps = np.linalg.norm(np.diff(np.nanmean(vertebrae, axis=1), axis=0), axis=1)
    if (np.maximum(steps[1:], steps[:-1]) > MAX_STEP * np.minimum(steps[1:], steps[:-1])).any():
        raise _Unclear("a vertebra is missing between two others")
