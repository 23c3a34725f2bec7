"""Films decoded and shrunk once and kept on disk: runs after the first start at once, and hold no pixels.

A cache is a folder with a folder for each input size in it (its name also has the resolution that is kept and
the version of the format, so other settings never meet). There, ``films.bin`` holds the pixels, uint8, row by
row, film after film, and ``index.jsonl`` a line for every film: its file, that file's size and time of change, the
film's own height and width, where its pixels begin, and their checksum. Pixels are only ever appended, and a line
is written when its pixels are on the disk. So a run that is killed leaves whole films behind, which the next one
uses; a film that changed is read again, alone; and a cache may grow while others read from it. Labels are not
kept: they come from the records.
"""

import json
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from filelock import FileLock
from pydantic import NonNegativeInt, PositiveInt, TypeAdapter

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import parse_json, replacing
from vertebra_kp.data.film_file import FilmError, open_film
from vertebra_kp.data.films import (
    KEPT_RESOLUTION,
    FilmsOfRecords,
    check_records,
    kept_frame,
    labelled_film,
    read_all,
    read_kept,
)
from vertebra_kp.data.record import Record

log = logging.getLogger(__name__)

FORMAT = 1  # to be raised when files are laid out, or films decoded and shrunk, in another way
PIXELS, INDEX, LOCK = "films.bin", "index.jsonl", "lock"
FILMS_PER_SYNC = 64  # so many are read again at most after a run was killed


@dataclass(frozen=True)
class CachedFilm:
    """``file`` as it was read: ``bytes`` long, changed at ``mtime_ns``; the film's own ``size``.

    Its pixels begin at byte ``offset`` of ``films.bin``; ``crc32`` is their checksum with ``size``, None in caches
    of earlier versions.
    """

    file: str
    bytes: int
    mtime_ns: int
    size: tuple[PositiveInt, PositiveInt]
    offset: NonNegativeInt
    crc32: int | None = None

    def kept_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        return kept_frame(self.size, input_size)[0]

    def end(self, input_size: tuple[int, int]) -> int:
        height, width = self.kept_size(input_size)
        return self.offset + height * width


def settings_folder(cache: Path, input_size: tuple[int, int]) -> Path:
    """Where a cache has its films for an input size."""
    height, width = input_size
    return cache.expanduser() / f"{height}x{width}-{KEPT_RESOLUTION}-v{FORMAT}"


def fill_cache(
    cache: Path, paths: Sequence[Path], input_size: tuple[int, int], *, workers: int | None = None
) -> list[CachedFilm]:
    """The entry of every film; what the cache lacks, and what has changed on disk, is read first.

    Several processes may ask at once: one reads, the others wait and use what it read. ``workers`` are threads,
    None takes a few more than there are cores. Raises FilmError naming every film that cannot be read, after the
    others are in the cache.
    """
    folder = settings_folder(cache, input_size)
    files = [os.path.abspath(path) for path in paths]
    index = read_index(folder, input_size)
    if _to_read(files, index):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            index = read_index(folder, input_size)
            if lacking := _to_read(files, index):
                log.info("%s: reading %d films, %s", folder, len(lacking), _reason(lacking, index))
                _read_films(folder, lacking, index, input_size, workers)
                index = read_index(folder, input_size)
    return [index[file] for file in files]


def read_index(folder: Path, input_size: tuple[int, int]) -> dict[str, CachedFilm]:
    """The newest entry of every file whose pixels are there; a line that a killed run left unfinished is none."""
    if not all((folder / name).is_file() for name in (PIXELS, INDEX)):
        return {}
    end = (folder / PIXELS).stat().st_size
    index = {}
    for line in (folder / INDEX).read_bytes().split(b"\n"):
        entry = _parsed(line)
        if entry is not None and entry.end(input_size) <= end:
            index[entry.file] = entry
    return index


LINE = TypeAdapter(CachedFilm)


def checksum(size: tuple[int, int], pixels: np.ndarray) -> int:
    """CRC-32 of the film's own size and the kept pixels: both together place its corners."""
    return zlib.crc32(np.ascontiguousarray(pixels).data, zlib.crc32(f"{size[0]} {size[1]}".encode()))


def _line(film: CachedFilm) -> bytes:
    return json.dumps(asdict(film)).encode() + b"\n"


def _parsed(line: bytes) -> CachedFilm | None:
    try:
        return LINE.validate_python(parse_json(line), strict=False)
    except ValueError:
        return None


def _to_read(files: Sequence[str], index: dict[str, CachedFilm]) -> list[str]:
    return [file for file in dict.fromkeys(files) if file not in index or not _is_current(index[file])]


def _is_current(entry: CachedFilm) -> bool:
    try:
        found = os.stat(entry.file)
    except OSError:  # reading it tells what is wrong
        return False
    return (found.st_size, found.st_mtime_ns) == (entry.bytes, entry.mtime_ns)


def _reason(lacking: Sequence[str], index: dict[str, CachedFilm]) -> str:
    if not index:
        return "the first with these settings"
    changed = sum(file in index for file in lacking)
    return f"{len(lacking) - changed} new, {changed} changed since they were cached"


def _read_films(
    folder: Path,
    files: Sequence[str],
    index: dict[str, CachedFilm],
    input_size: tuple[int, int],
    workers: int | None,
) -> None:
    """Appends films to a cache whose lock the caller holds and whose whole films are ``index``."""
    with replacing(folder / INDEX) as kept:  # without other lines: pixels that come now would seem to be theirs
        kept.writelines(map(_line, index.values()))
    lock, waiting = Lock(), list[CachedFilm]()
    with open(folder / PIXELS, "ab") as pixels, open(folder / INDEX, "ab") as lines:

        def sync() -> None:
            """Pixels first: what the index tells of is there."""
            pixels.flush()
            os.fsync(pixels.fileno())
            lines.writelines(map(_line, waiting))
            lines.flush()
            waiting.clear()

        def read(file: str) -> None:
            with open_film(Path(file)) as opened:  # before its pixels: a change meanwhile is seen next time
                found = os.fstat(opened.fileno())
            image, size = read_kept(Path(file), input_size)
            crc32 = checksum(size, image)
            with lock:
                offset = pixels.seek(0, os.SEEK_END)
                pixels.write(np.ascontiguousarray(image).data)
                waiting.append(CachedFilm(file, found.st_size, found.st_mtime_ns, size, offset, crc32))
                if len(waiting) == FILMS_PER_SYNC:
                    sync()

        try:
            read_all(read, files, "caching films", workers)
        finally:
            sync()


class CachedFilms(FilmsOfRecords):
    """Films of records whose pixels stay in a cache: memory does not grow with their number.

    The same films, bit by bit, as a ``FilmList`` of the records. The pixels of a film are mapped when it is asked
    for, by the process that asks.
    """

    def __init__(
        self,
        records: Sequence[Record],
        schema: Schema,
        input_size: tuple[int, int],
        cache: Path,
        *,
        workers: int | None = None,
    ) -> None:
        """Fills the cache where it lacks a film; raises FilmError naming every film that cannot be read."""
        check_records(records, schema)
        paths = [record.image_path for record in records]
        self._entries = fill_cache(cache, paths, input_size, workers=workers)
        films = [
            labelled_film(record, schema, entry.size, input_size)
            for record, entry in zip(records, self._entries, strict=True)
        ]
        super().__init__(films, schema)
        self._file, self._input_size = settings_folder(cache, input_size) / PIXELS, input_size

    def _pixels(self, index: int) -> np.ndarray:
        entry = self._entries[index]
        try:
            pixels = np.memmap(self._file, np.uint8, "r", entry.offset, entry.kept_size(self._input_size))
        except (OSError, ValueError) as error:  # ValueError: the file is shorter than it was
            told = f"its pixels in {self._file} cannot be read ({error}); start anew, which fills the cache"
            raise FilmError(f"{entry.file}: {told}") from error
        if entry.crc32 is not None and entry.crc32 != checksum(entry.size, pixels):
            told = f"its pixels in {self._file} are damaged; remove that file, the next start fills the cache anew"
            raise FilmError(f"{entry.file}: {told}")
        return np.asarray(pixels)
