"""The file of a film, whatever its format: opened, or one line that says why not; and whether it is DICOM."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vertebra_kp.core.errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
MAX_PIXELS = 178_956_970  # of a film; Pillow refuses more, too (twice its MAX_IMAGE_PIXELS)
_PREAMBLE, _MARK = 128, b"DICM"  # PS3.10, section 7.1


class FilmError(UserError):
    """A file that cannot be read as a film; the message names file, fault and remedy."""


@contextmanager
def open_film(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading; FilmError when it is missing, empty, a folder, or may not be read."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FilmError(f"{path}: empty file (0 bytes); copy or export it again")
            yield file
    except FileNotFoundError as error:
        raise FilmError(f"{path}: no such file; check the name") from error
    except IsADirectoryError as error:
        raise FilmError(f"{path}: a folder, not a film; name a file") from error
    except PermissionError as error:
        raise FilmError(f"{path}: may not be read; check its permissions") from error


def is_dicom(path: Path) -> bool:
    """Whether a file is to be read as DICOM: by its suffix, or else by the mark that such files carry."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(_PREAMBLE + len(_MARK))[_PREAMBLE:] == _MARK
    except OSError:
        return False  # whoever reads it will tell what is wrong
