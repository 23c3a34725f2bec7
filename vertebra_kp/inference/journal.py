"""``predictions.jsonl``: what was found on each image, written as it is found, so that no end loses it.

The first line says what the results are made with; every other line is one image. A run that was interrupted goes
on behind the last whole line. Every line carries a checksum of itself; those of earlier versions have none.
"""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import parse_json
from vertebra_kp.inference.predictions import CSV_FILE, JSON_FILE, REPORT_FILE

FILE = "predictions.jsonl"
CHECKSUM = "crc32"

Line = dict[str, Any]  # JSON


class Journal:
    """The images that are done, by file, and the open file that the next ones go to."""

    def __init__(self, done: dict[str, Line], file: BinaryIO) -> None:
        self.done, self._file = done, file

    def add(self, name: str, line: Line) -> None:
        """Keep an image's results; they are on disk when this returns."""
        self.done[name] = line
        self._write({"file": name, **line})

    def _write(self, line: Line) -> None:
        self._file.write(_text({**line, CHECKSUM: zlib.crc32(_text(line))}) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def open_journal(folder: Path, about: Line, *, resume: bool, overwrite: bool) -> Iterator[Journal]:
    """The journal of ``folder``, which no other process has open.

    ``about`` is what results depend on: network and settings. Raises UserError where the folder holds results and
    neither ``resume`` nor ``overwrite`` is asked for, or those of another ``about`` are to be resumed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    lock = FileLock(folder / f".{FILE}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another process writes its results there; choose another folder") from None
    try:
        done: dict[str, Line] = {}
        if overwrite:
            for name in (FILE, JSON_FILE, CSV_FILE, REPORT_FILE):
                (folder / name).unlink(missing_ok=True)
        elif resume and path.is_file():
            done = _read(path, about)
        elif path.exists() or (folder / JSON_FILE).exists():
            raise UserError(
                f"{folder} already holds results: resume them, overwrite them, or choose another folder"
            )
        with path.open("ab") as file:
            journal = Journal(done, file)
            if not file.tell():
                journal._write({"about": about})
            yield journal
    finally:
        lock.release()


def _read(path: Path, about: Line) -> dict[str, Line]:
    """The images of a journal; half a line at its end, of a write that was cut short, is taken off the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    try:
        lines = _checked([parse_json(line) for line in whole.splitlines()])
        if lines and lines[0]["about"] != about:
            other = sorted(key for key in about if lines[0]["about"].get(key) != about[key])
            raise UserError(
                f"{path}: made with another {', '.join(other)}; overwrite it, or choose another folder"
            )
        return {line.pop("file"): line for line in lines[1:]}
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error!r}); overwrite it, or choose another folder") from None


def _text(line: Line) -> bytes:
    return json.dumps(line, allow_nan=False).encode()


def _checked(lines: list[Line]) -> list[Line]:
    """The lines without their checksums; ValueError where one is not as it was written."""
    if any(CHECKSUM in line for line in lines):  # of this version: then all have one
        for line in lines:
            if line.pop(CHECKSUM, None) != zlib.crc32(_text(line)):
                raise ValueError("a line is not as it was written")
    return lines
