"""Films in tar shards as WebDataset lays them out: a few large files instead of many small ones.

A film is two members of one key (their name up to the first dot), one after the other: ``KEY.png``, its kept
pixels in 8-bit gray, and ``KEY.json``, which ``ShardedFilm`` describes. Shards are not compressed, so every member
has a fixed place, and ``ShardFilms`` reads any film by itself: which film comes when, the split between processes
and workers, and exact resume are those of any other films. Where seeking is slow, ``ShardOrder`` reads shard after
shard.
"""

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, BinaryIO

import cv2
import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from tqdm import tqdm

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, SLIP_CLASSES, UNKNOWN, Schema, Side, State, View
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import fault_of
from vertebra_kp.data.films import (
    KEPT_RESOLUTION,
    FilmsOfRecords,
    check_records,
    film_of_record,
    kept_frame,
    labelled_film,
)
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.record import Record, label_arrays, take_levels
from vertebra_kp.data.sources.problems import SourceError, raise_if_any

if TYPE_CHECKING:
    from webdataset import TarWriter

MAX_BYTES = {"png": 64 * 2**20, "json": 2**20}  # of a member; larger ones are not read
MAX_HEADER_BYTES = 2**16
PARTIAL = ".partial"  # behind the name of a shard that is not finished, or whose set is not
DEALT_BY = 0  # seed of the order in which films are dealt out, so that films of a patient do not lie together

_BLOCK = tarfile.BLOCKSIZE
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # key and extension, as WebDataset splits a name
_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")  # "LENGTH KEYWORD=VALUE\n" of a pax header, POSIX.1-2001


class ShardedFilm(BaseModel):
    """What ``KEY.json`` says of a film.

    ``size`` is height and width of the original film; the PNG is that film shrunk for a network of ``input_size``
    at ``kept_resolution``. ``points_xy_image`` ``[levels, 4]`` of ``[x, y]`` or null, and ``states``
    ``[levels, 4]`` (numbers of ``State``), are the labels as in ``Record``, over the levels of ``anatomy``; so are
    ``view`` and ``slips``. ``pixels_crc32`` is the checksum of the PNG's pixels, ``crc32`` of everything here.
    Shards of earlier versions lack these four, and shards by other tools may.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    source: str
    id: str
    group: str
    anatomy: str
    size: tuple[PositiveInt, PositiveInt]
    input_size: tuple[PositiveInt, PositiveInt]
    kept_resolution: float
    points_xy_image: list[list[tuple[float, float] | None]]
    states: list[list[State]]
    spacing_mm: float | None = None
    anterior_side: Side | None = None
    view: View | None = None
    slips: list[Annotated[int, Field(ge=UNKNOWN, lt=len(SLIP_CLASSES))]] | None = None
    pixels_crc32: int | None = None
    crc32: int | None = None

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.model_dump_json(exclude={"crc32"}).encode())

    def record(self, shard: Path) -> Record:
        """As a record of the levels of ``anatomy``; ValueError says what does not fit."""
        if self.anatomy not in SCHEMAS:
            raise ValueError(f"{self.id}: anatomy must be one of {', '.join(SCHEMAS)}, got {self.anatomy!r}")
        schema = SCHEMAS[self.anatomy]
        points, states = label_arrays(schema)
        for name, rows in (("points_xy_image", self.points_xy_image), ("states", self.states)):
            if [len(row) for row in rows] != [len(CORNERS)] * len(points):
                raise ValueError(f"{self.id}: {name} must be {len(points)} x {len(CORNERS)} for {self.anatomy}")
        if self.slips is not None and len(self.slips) != schema.num_levels:
            raise ValueError(f"{self.id}: slips must be {schema.num_levels} for {self.anatomy}")
        states = np.where(schema.exists, self.states, State.NONEXISTENT).astype(np.int8)
        for i, j in np.argwhere(states == State.LABELLED):
            point = self.points_xy_image[i][j]
            if point is None:
                raise ValueError(f"{self.id}: {schema.levels[i]} {CORNERS[j]} is labelled without a position")
            points[i, j] = point
        return Record(
            id=self.id,
            image_path=shard,
            group=self.group,
            points_xy_image=points,
            states=states,
            spacing_mm=self.spacing_mm,
            anterior_side=self.anterior_side,
            view=self.view,
            slips=None if self.slips is None else np.array(self.slips, np.int8),
        )


@dataclass(frozen=True)
class Place:
    """Where a film's PNG stands in its shard, and the checksum of its pixels; ``size`` is the original film's."""

    shard: Path
    member: str
    offset: int
    length: int
    size: tuple[int, int]
    crc32: int | None = None


@dataclass(frozen=True)
class ShardOrder:
    """Reads shard after shard, in a new order every epoch, and mixes films within ``window`` places.

    ``shards`` are the numbers of each shard's films, as they lie in it.
    """

    shards: tuple[tuple[int, ...], ...]
    window: int

    def shuffled(self, seed: int, epoch: int) -> np.ndarray:
        """All films, a pure function of seed and epoch; none comes ``window`` or more places early or late."""
        rng = np.random.default_rng((seed, epoch))
        films = np.concatenate([self.shards[i] for i in rng.permutation(len(self.shards))])
        places = np.arange(len(films)) + self.window * rng.random(len(films))
        return films[np.argsort(places, kind="stable")]


def write_shards(
    records: Sequence[Record],
    schema: Schema,
    input_size: tuple[int, int],
    folder: Path,
    *,
    source: str,
    shards: int,
    workers: int | None = None,
) -> list[Path]:
    """``films-000000.tar`` and so on in ``folder``, each with its share of the films.

    The same films give the same bytes. Shards get their names when the last one is written; what a run that was
    killed has left is written anew. Raises UserError where the folder has shards already, another process writes
    there, or there are fewer films than shards, and FilmError naming every film that cannot be read, or where only
    centres or unnamed vertebrae are marked.
    """
    check_records(records, schema)
    folder = folder.expanduser()
    if shards > len(records):
        raise UserError(f"shards {shards}: there are {len(records)} films; ask for fewer shards")
    failures: list[str] = []

    def sample(number: int) -> dict | None:
        try:
            return {"__key__": f"{number:06d}", **_members(records[number], schema, input_size, source)}
        except FilmError as error:
            failures.append(str(error))
            return None

    dealt = np.random.default_rng(DEALT_BY).permutation(len(records))
    partial = []
    with (
        _alone_in(folder),
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(records), unit="film", leave=False) as bar,
    ):
        _make_room(folder)
        for i, numbers in enumerate(np.array_split(dealt, shards)):
            bar.set_description(f"shard {i + 1} of {shards}")
            partial.append(folder / f"films-{i:06d}.tar{PARTIAL}")
            with _tar_writer(partial[-1]) as tar:
                for written in pool.map(sample, numbers):
                    if written is not None:
                        tar.write(written)
                    bar.update()
        if failures:
            for path in partial:
                path.unlink()
            raise FilmError("\n".join(sorted(failures)))
        return [path.rename(path.with_suffix("")) for path in partial]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, with no other process that writes shards there; else UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))  # beside it: in it there is nothing but shards
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another process writes shards there; wait for it, or name another") from None
    try:
        yield
    finally:
        lock.release()


def _make_room(folder: Path) -> None:
    """Remove what a run that was killed has left; UserError where the shards are whole."""
    found, partial = sorted(folder.glob("*.tar")), list(folder.glob(f"*.tar{PARTIAL}"))
    if found and not partial:
        raise UserError(f"{folder} holds shards already ({found[0].name} ...); name another folder or remove them")
    for path in (*found, *partial):
        path.unlink()


@contextmanager
def _tar_writer(path: Path) -> Iterator["TarWriter"]:
    from webdataset import TarWriter  # here: it brings torch, which nothing else in this file needs

    with open(path, "wb") as file:
        with TarWriter(file, encoder=False, mtime=0) as tar:
            yield tar
        file.flush()
        os.fsync(file.fileno())


def _members(record: Record, schema: Schema, input_size: tuple[int, int], source: str) -> dict[str, bytes]:
    """A film's PNG and JSON, by extension."""
    film = film_of_record(record, schema, input_size)
    points, states = label_arrays(schema)
    if record.points_xy_image is not None and record.states is not None:
        points, states = record.points_xy_image, record.states
    described = {
        "source": source,
        "id": record.id,
        "group": record.group,
        "anatomy": schema.name,
        "size": film.size,
        "input_size": input_size,
        "kept_resolution": KEPT_RESOLUTION,
        "points_xy_image": [[None if np.isnan(xy).any() else xy.tolist() for xy in level] for level in points],
        "states": states.tolist(),
        "spacing_mm": record.spacing_mm,
        "anterior_side": record.anterior_side,
        "view": record.view,
        "slips": None if record.slips is None else record.slips.tolist(),
    }
    png = cv2.imencode(".png", film.image)[1].tobytes()
    sharded = ShardedFilm.model_validate(
        described | {"pixels_crc32": zlib.crc32(np.ascontiguousarray(film.image).data)}
    )
    sharded = sharded.model_copy(update={"crc32": sharded.checksum})
    return {"png": png, "json": sharded.model_dump_json().encode()}


def read_shards(
    folder: Path, source: str, schema: Schema, input_size: tuple[int, int]
) -> tuple[list[Record], dict[str, Place]]:
    """Records of all films in a folder's ``*.tar``, sorted by id, and the place of each id's pixels.

    Labels are read, pixels are not. Raises SourceError that lists what is wrong, shard by shard: damage, members
    that are no regular files, lead out of the shard or are larger than ``MAX_BYTES``, films without PNG or
    JSON, of another source or size, without the levels of ``schema``, or of an id that another film has.
    """
    folder = folder.expanduser()
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise SourceError(f"{folder} holds no .tar; prepare shards first")
    if partial := sorted(folder.glob(f"*.tar{PARTIAL}")):
        raise SourceError(f"{folder} is not whole, {partial[0].name} was never finished; prepare the shards again")
    found: dict[str, tuple[Record, Place]] = {}
    problems = []
    for shard in shards:
        try:
            for film, place in _films_in(shard):
                _check_fits(film, source, schema, input_size)
                if film.id in found:
                    raise ValueError(f"{place.member}: {found[film.id][1].shard.name} has film {film.id!r} too")
                record = take_levels(film.record(shard), SCHEMAS[film.anatomy], schema)
                found[film.id] = record, place
        except (ValueError, tarfile.HeaderError) as error:
            problems.append(f"{shard.name}: {error}")
    raise_if_any(problems, folder, "write or copy these shards anew")
    ids = sorted(found)
    return [found[id][0] for id in ids], {id: found[id][1] for id in ids}


def _check_fits(film: ShardedFilm, source: str, schema: Schema, input_size: tuple[int, int]) -> None:
    if film.source != source:
        raise ValueError(f"films of source {film.source}, data.source is {source}")
    made_for, wanted = (film.input_size, film.kept_resolution), (input_size, KEPT_RESOLUTION)
    if made_for != wanted:
        raise ValueError(
            f"films for input_size {list(film.input_size)} at resolution {film.kept_resolution}, "
            f"data.input_size is {list(input_size)} at {KEPT_RESOLUTION}"
        )
    if film.anatomy in SCHEMAS and not set(schema.levels) <= set(SCHEMAS[film.anatomy].levels):
        raise ValueError(f"films with the levels of {film.anatomy}, data.anatomy is {schema.name}")


def _films_in(shard: Path) -> Iterator[tuple[ShardedFilm, Place]]:
    """Every film of a shard, its JSON read; ValueError or HeaderError at the first thing that is wrong."""
    with open(shard, "rb") as file:
        key, parts = "", dict[str, tuple[int, int, bytes]]()
        for member, offset in _regular_files(file):
            match = _NAME.fullmatch(member.name)
            if match is None:
                raise ValueError(f"{member.name}: a name must be KEY.png or KEY.json")
            if match[1] != key:
                if parts:
                    yield _film_of(key, parts, shard)
                key, parts = match[1], {}
            if match[2] in parts:
                raise ValueError(f"{member.name} stands there twice")
            if member.size > MAX_BYTES.get(match[2], member.size):
                raise ValueError(f"{member.name} has {member.size} bytes, at most {MAX_BYTES[match[2]]} are read")
            text = file.read(member.size) if match[2] == "json" else b""
            parts[match[2]] = (offset, member.size, text)
        if parts:
            yield _film_of(key, parts, shard)


def _film_of(key: str, parts: dict[str, tuple[int, int, bytes]], shard: Path) -> tuple[ShardedFilm, Place]:
    if missing := MAX_BYTES.keys() - parts.keys():
        raise ValueError(f"{key} has no {' and no '.join(sorted(missing))}")
    try:
        film = ShardedFilm.model_validate_json(parts["json"][2])
    except ValidationError as error:
        raise ValueError(f"{key}.json: {fault_of(error)}") from error
    if film.crc32 is not None and film.crc32 != film.checksum:
        raise ValueError(f"{key}.json is damaged: its checksum differs")
    offset, length, _ = parts["png"]
    return film, Place(shard, f"{key}.png", offset, length, film.size, film.pixels_crc32)


def _regular_files(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Header and offset of every member; nothing but headers is read, whatever size they tell of.

    The standard library's reader takes damage in the middle for the end, and reads long headers whole.
    """
    offset, extended = 0, dict[str, str]()
    while True:
        file.seek(offset)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        if len(block) < _BLOCK:
            raise ValueError("cut off: no end mark follows its last member")
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if member.size < 0:  # would lead back to a member before it, for ever
            raise ValueError(f"{member.name} has {member.size} bytes")
        content = offset + _BLOCK
        offset = content + -(-member.size // _BLOCK) * _BLOCK
        if member.type == tarfile.XHDTYPE:
            extended = _extended_header(file, member)
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = member.type.decode("ascii", "replace")
            raise ValueError(f"{member.name} is of tar type {kind!r}; only regular files are read")
        member.name = extended.get("path", member.name)
        extended = {}
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{member.name!r} must stay inside the shard")
        yield member, content


def _extended_header(file: BinaryIO, header: tarfile.TarInfo) -> dict[str, str]:
    """What a pax header says of the member after it: webdataset writes one for times with fractions.

    Raises ValueError for one that is large, damaged, or makes the member another size than its own header does.
    """
    if header.size > MAX_HEADER_BYTES:
        raise ValueError(f"{header.name} is a header of {header.size} bytes, at most {MAX_HEADER_BYTES} are read")
    rest, records = file.read(header.size), dict[str, str]()
    while rest:
        match = _RECORD.match(rest)
        if match is None or int(match[1]) <= match.end():
            raise ValueError(f"{header.name} is a damaged header")
        length = int(match[1])
        records[match[2].decode()] = rest[match.end() : length - 1].decode()
        rest = rest[length:]
    if strange := [keyword for keyword in records if keyword == "size" or keyword.startswith("GNU.sparse")]:
        raise ValueError(f"{header.name} has {strange[0]}; only whole files of plain size are read")
    return records


class ShardFilms(FilmsOfRecords):
    """Films of records whose pixels stay in shards until asked for: memory does not grow with their number."""

    def __init__(
        self,
        records: Sequence[Record],
        places: dict[str, Place],
        schema: Schema,
        input_size: tuple[int, int],
        *,
        window: int | None = None,
    ) -> None:
        """``records`` and ``places`` of ``read_shards``; fewer records where splits chose some.

        ``window`` asks for an order that reads shard after shard.
        """
        self._places = [places[record.id] for record in records]
        films = [
            replace(labelled_film(record, schema, place.size, input_size), file=f"{place.shard}/{place.member}")
            for record, place in zip(records, self._places, strict=True)
        ]
        super().__init__(films, schema)
        self._input_size, self._window = input_size, window

    @property
    def order(self) -> ShardOrder | None:
        """The order that reads shard after shard, None where any will do."""
        if self._window is None:
            return None
        shards: dict[Path, list[int]] = {}
        for number in sorted(range(len(self)), key=lambda number: self._places[number].offset):
            shards.setdefault(self._places[number].shard, []).append(number)
        return ShardOrder(tuple(tuple(shards[shard]) for shard in sorted(shards)), self._window)

    def _pixels(self, index: int) -> np.ndarray:
        film, place = self._films[index], self._places[index]
        height, width = kept_frame(film.size, self._input_size)[0]
        try:
            with open(place.shard, "rb") as file:
                file.seek(place.offset)
                png = io.BytesIO(file.read(place.length))
            with Image.open(png, formats=["PNG"]) as image:
                if (image.mode, image.size) != ("L", (width, height)):  # by the header, before a pixel is decoded
                    got = f"{image.mode} of {image.height} x {image.width}"
                    raise ValueError(f"wanted 8-bit gray of {height} x {width}, got {got}")
                pixels = np.asarray(image)
            if place.crc32 is not None and place.crc32 != zlib.crc32(np.ascontiguousarray(pixels).data):
                raise ValueError("damaged, its checksum differs")
            return pixels
        except Exception as error:  # decoders raise OSError, SyntaxError, zlib.error, ...: all mean damage
            raise FilmError(f"{film.file}: {error}; write or copy its shard anew") from error
