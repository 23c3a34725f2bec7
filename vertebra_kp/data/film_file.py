"""The file of a film, whatever its format: opened, or one line that says why not; and whether it is DICOM."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Lock
from typing import BinaryIO

from vertebra_kp.core.errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
MAX_PIXELS = 2**26  # of a film: a whole spine at 0.1 mm has half of them
MAX_BYTES = 2**29  # of a file: as many pixels of the largest kind that is read, uncompressed
LARGE = 2**24  # pixels from which films are decoded one at a time, whatever threads there are

_PREAMBLE, _MARK = 128, b"DICM"  # PS3.10, section 7.1
_META, _IDENTIFYING = 0x0002, 0x0008  # groups that a DICOM file without preamble begins with
_LONGEST_FIRST = 128  # bytes of a first element, which is a length, a character set or a UID
_large_films = Lock()


class FilmError(UserError):
    """A file that cannot be read as a film; the message names file, fault and remedy."""


@contextmanager
def open_film(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading; FilmError when it is missing, empty, too large, a folder, or unreadable."""
    try:
        mode = os.stat(path).st_mode
        if not S_ISREG(mode) and not S_ISDIR(mode):  # opening a pipe would wait for ever
            raise FilmError(f"{path}: a pipe or device, not a film; save it as a file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise FilmError(f"{path}: empty file (0 bytes); copy or export it again")
            if size > MAX_BYTES:
                told = f"{size // 2**20} MiB are more than {MAX_BYTES // 2**20}, the most for one film"
                raise FilmError(f"{path}: {told}; export it alone, or shrink it")
            yield file
    except FileNotFoundError as error:
        raise FilmError(f"{path}: no such file; check the name") from error
    except IsADirectoryError as error:
        raise FilmError(f"{path}: a folder, not a film; name a file") from error
    except PermissionError as error:
        raise FilmError(f"{path}: may not be read; check its permissions") from error


def decoding(pixels: int) -> "Lock | nullcontext[None]":
    """What a film of so many pixels is decoded under: several large ones at once would fill the memory."""
    return _large_films if pixels > LARGE else nullcontext()


def is_dicom(path: Path) -> bool:
    """Whether a file is to be read as DICOM: by its suffix, or else by how such files begin."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(_PREAMBLE + len(_MARK))
    except OSError:
        return False  # whoever reads it will tell what is wrong
    return elements_start(start) is not None


def elements_start(start: bytes) -> int | None:
    """Where a DICOM file's elements begin, by its first bytes: behind the mark, or at once; None for no DICOM.

    Files without preamble and mark, as DICOM had them before PS3.10, begin with a short element of a low group.
    """
    if start[_PREAMBLE:][: len(_MARK)] == _MARK:
        return _PREAMBLE + len(_MARK)
    if len(start) < 8:
        return None
    group, _, vr, length = struct.unpack_from("<HH2sH", start)
    if not vr.isalpha():  # implicit: no VR, and four bytes of length
        (length,) = struct.unpack_from("<I", start, 4)
    return 0 if group in (_META, _IDENTIFYING) and 0 < length <= _LONGEST_FIRST else None
