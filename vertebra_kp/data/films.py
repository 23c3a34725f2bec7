"""A film in memory with its labels, whether read from disk or drawn: what transforms work on."""

import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from vertebra_kp.core.anatomy import UNKNOWN, VIEWS, Schema, Side, State
from vertebra_kp.core.geometry import apply_affine, compose, scale, warp_image
from vertebra_kp.data.images import FilmError, read_film, to_uint8
from vertebra_kp.data.record import Record, label_arrays, mark_outside, mask_slips, unknown_slips

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomInfo

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Read = TypeVar("Read")

# Films are kept a little larger than the network sees them, so that augmentation resamples from finer pixels.
KEPT_RESOLUTION = 1.25
NO_PIXELS = np.empty((0, 0), dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is known of a film, wherever its pixels are.

    ``states`` [levels, 4]; ``slips`` [levels] int8 of ``SLIP_CLASSES``, ``view``, a place in ``VIEWS``, and
    ``image_class``, a place among the names of a config's classes, are ``UNKNOWN`` where nobody told. ``size``
    is the original film's; ``file`` where it was read from, its id for a drawn one. ``anterior_side`` is told of
    lateral films.
    """

    id: str
    file: str
    group: str
    states: np.ndarray
    slips: np.ndarray
    view: int
    size: tuple[int, int]
    spacing_mm: float | None = None
    anterior_side: Side | None = None
    image_class: int = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class FilmLabels(_Known):
    """With ``points_xy_image`` in its original pixels; travels with its batch, without the image."""

    points_xy_image: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Film(_Known):
    """With its ``image`` [H, W] uint8 and corners ``points_xy`` [levels, 4, 2] in that image's frame.

    ``to_image`` is the 3x3 matrix from the original film's frame to this image's; ``window`` the one from this
    image to the unit square that is looked at; None looks at all of it. ``header`` is that of a DICOM file.
    """

    image: np.ndarray
    points_xy: np.ndarray
    to_image: np.ndarray
    window: np.ndarray | None = None
    header: "DicomInfo | None" = None

    def labels(self) -> FilmLabels:
        points = apply_affine(np.linalg.inv(self.to_image), self.points_xy)
        return FilmLabels(points_xy_image=points, **{of.name: getattr(self, of.name) for of in fields(_Known)})


def shrunk(film: Film, input_size: tuple[int, int]) -> Film:
    """A film that is kept in finer pixels, in those that a network of ``input_size`` needs."""
    image, matrix = shrink(film.image, input_size)
    points = apply_affine(matrix, film.points_xy).astype(np.float32)
    return replace(film, image=image, points_xy=points, to_image=compose(film.to_image, matrix))


class LooseFilms:
    """A few films in hand, to be looked at once."""

    identity = "loose films"

    def __init__(self, films: Sequence[Film]) -> None:
        self.films = films

    def __len__(self) -> int:
        return len(self.films)

    def at(self, epoch: int, index: int) -> Film:
        return self.films[index]


def kept_frame(size: tuple[int, int], input_size: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
    """Height and width that are kept of a film of ``size``, and the matrix into that frame."""
    height, width = size
    factor = KEPT_RESOLUTION * min(input_size[0] / height, input_size[1] / width)
    if factor >= 1:
        return size, np.eye(3)
    kept = max(1, round(height * factor)), max(1, round(width * factor))
    return kept, scale(kept[1] / width, kept[0] / height)


def shrink(image: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The film in the pixels that a network of ``input_size`` needs, and the matrix into that frame.

    Training, evaluation and prediction all start from this, so that they see the same pixels.
    """
    height, width = image.shape
    kept, matrix = kept_frame((height, width), input_size)
    if kept == (height, width):
        return image, matrix
    return warp_image(image, matrix, kept), matrix


def read_kept(path: Path, input_size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The pixels that are kept of a film on disk, uint8, and the film's own height and width."""
    image = to_uint8(read_film(path))
    height, width = image.shape
    return shrink(image, input_size)[0], (height, width)


def film_of_record(record: Record, schema: Schema, input_size: tuple[int, int]) -> Film:
    """Read a record's film and shrink it to what a network of that size needs.

    Corners beyond the film's edge are reported once and masked (state OUTSIDE).
    """
    image, size = read_kept(record.image_path, input_size)
    return replace(labelled_film(record, schema, size, input_size), image=image)


def labelled_film(record: Record, schema: Schema, size: tuple[int, int], input_size: tuple[int, int]) -> Film:
    """A record's film of ``size`` with all but its pixels: for films whose pixels stay on disk until asked for."""
    points, states = label_arrays(schema)
    slips = unknown_slips(schema) if record.slips is None else record.slips
    view = record.view
    if record.points_xy_image is not None and record.states is not None:
        view = view or schema.view
        if np.isnan(record.points_xy_image[record.states == State.LABELLED]).any():
            raise FilmError(f"{record.image_path}: a labelled corner has no position (NaN); mark it unlabelled")
        points, states, outside = mark_outside(record.points_xy_image, record.states, size)
        if outside:
            log.warning("%s: %d corners lie outside the film and are masked", record.image_path, outside)
    _, to_image = kept_frame(size, input_size)
    return Film(
        id=record.id,
        file=str(record.image_path),
        group=record.group,
        image=NO_PIXELS,
        points_xy=apply_affine(to_image, points).astype(np.float32),
        states=states,
        slips=mask_slips(slips, states),
        view=UNKNOWN if view is None else VIEWS.index(view),
        to_image=to_image,
        size=size,
        spacing_mm=record.spacing_mm,
        anterior_side=record.anterior_side,
        image_class=record.image_class,
    )


def read_all(
    read: Callable[[Item], Read], items: Sequence[Item], told: str, workers: int | None = None
) -> list[Read]:
    """What ``read`` makes of every item, in threads; raises one FilmError that names all that it raised."""

    failures: list[str] = []

    def attempt(item: Item) -> list[Read]:
        try:
            return [read(item)]
        except FilmError as error:
            failures.append(str(error))
            return []

    with ThreadPoolExecutor(workers) as pool:
        found = list(tqdm(pool.map(attempt, items), told, len(items), unit="film", leave=False))
    if failures:
        raise FilmError("\n".join(sorted(failures)))
    return [one for ones in found for one in ones]


class Films(Protocol):
    """What a loader draws from: film ``index`` of ``epoch``."""

    def __len__(self) -> int: ...

    @property
    def identity(self) -> str:
        """Which films these are: the same text, the same films."""
        ...

    def at(self, epoch: int, index: int) -> Film: ...


def identity_of(films: Sequence[Film]) -> str:
    """Covers names and labels, not where the pixels are kept: a corrected corner is another training."""
    digest = hashlib.sha256()
    for film in films:
        digest.update(film.id.encode())
        # To a tenth of a shrunk pixel: another machine's rounding is no correction.
        digest.update(np.round(film.points_xy, 1).astype("<f4").tobytes() + film.states.tobytes())
        if (film.slips != UNKNOWN).any():
            digest.update(film.slips.tobytes())
        if film.image_class != UNKNOWN:
            digest.update(f"class {film.image_class}".encode())
    return f"{len(films)}:{digest.hexdigest()[:16]}"


def check_labels(films: Sequence[Film], schema: Schema) -> None:
    """Warns of films without a labelled corner; raises FilmError when no film has one."""
    without = [film.id for film in films if not (film.states == State.LABELLED).any()]
    if len(without) == len(films):
        raise FilmError(
            f"none of {len(without)} films has a labelled corner of {schema.name}: "
            f"{', '.join(without[:3])} ...; check data.anatomy and the labels"
        )
    if without:
        log.warning("%d films have no labelled corner: %s ...", len(without), ", ".join(without[:3]))


def check_records(records: Sequence[Record], schema: Schema) -> None:
    """Raises FilmError for films on which only centres or unnamed vertebrae are marked: they train no corner."""
    if any(record.is_partial for record in records) and not any(record.has_corners for record in records):
        raise FilmError(
            f"none of {len(records)} films has a labelled corner of {schema.name}: the source marks centres or "
            "unnamed vertebrae only, which train the spine network (config ap_spine); name a source with corners"
        )


class FilmsOfRecords(ABC):
    """Films that are the same in every epoch; where their pixels are is what subclasses know: ``_pixels``."""

    def __init__(self, films: Sequence[Film], schema: Schema) -> None:
        """Raises FilmError when no film has a labelled corner."""
        check_labels(films, schema)
        self._films = films

    def __len__(self) -> int:
        return len(self._films)

    @property
    def identity(self) -> str:
        return identity_of(self._films)

    def at(self, epoch: int, index: int) -> Film:
        """Raises FilmError where its pixels are gone or damaged."""
        return replace(self._films[index], image=self._pixels(index))

    @abstractmethod
    def _pixels(self, index: int) -> np.ndarray: ...


class FilmList(FilmsOfRecords):
    """Films of records, decoded and shrunk once, then held in one block of memory that all processes share.

    Pickled, it can be sent to a process as that starts, and nowhere else.
    """

    def __init__(self, records: list[Record], schema: Schema, input_size: tuple[int, int]) -> None:
        """Raises FilmError naming every film that cannot be read, or when no film has a labelled corner."""
        check_records(records, schema)
        films = read_all(partial(film_of_record, schema=schema, input_size=input_size), records, "reading films")
        super().__init__([replace(film, image=NO_PIXELS) for film in films], schema)
        images = [film.image for film in films]
        self._shapes = [image.shape for image in images]
        self._ends = np.cumsum([image.size for image in images])
        self._block = RawArray("B", int(self._ends[-1]))
        np.concatenate([image.ravel() for image in images], out=np.frombuffer(self._block, np.uint8))

    def _pixels(self, index: int) -> np.ndarray:
        shape, end = self._shapes[index], self._ends[index]
        return np.frombuffer(self._block, np.uint8)[end - math.prod(shape) : end].reshape(shape)
