"""Elements of a DICOM file: only those asked for are read, and no message quotes what stands in one.

Any element may hold what identifies a patient, also one that should not. pydicom and highdicom quote values in
their logs and warnings: both are closed here.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from vertebra_kp.core.errors import UserError
from vertebra_kp.data.film_file import FilmError, open_film

MAX_BYTES = 2**30  # of a file; a film of 16 bits and the most pixels that are read has a third of it


class ElementError(ValueError):
    """An element that cannot be used; the message names it and the remedy, and quotes numbers only."""


@contextmanager
def dicom_elements(path: Path, keywords: Iterable[str]) -> Iterator[Dataset]:
    """Those of the named elements that a file has; its pixels, and all other elements, are not read.

    Whatever goes wrong inside the block becomes a FilmError that quotes no element.
    """
    _close_logs()
    with open_film(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                told = f"{size // 2**20} MiB are more than {MAX_BYTES // 2**20}, the most for one film"
                raise ElementError(f"{told}; export it alone, or shrink it")
            _check_transfer_syntax(path)
            yield dcmread(file, stop_before_pixels=True, specific_tags=list(keywords))
        except UserError:
            raise
        except ElementError as error:
            raise FilmError(f"{path}: {error}") from None
        except InvalidDicomError:
            told = "not a DICOM file (it lacks the mark DICM); export it again, or convert it to PNG"
            raise FilmError(f"{path}: {told}") from None
        except Exception as error:  # its text may quote an element
            told = f"truncated or damaged ({type(error).__name__}); copy or export it again"
            raise FilmError(f"{path}: {told}") from None


def numbers(elements: Dataset, keyword: str) -> tuple[float, ...]:
    """The finite numbers of an element, none where it is missing or empty; ElementError for anything else."""
    try:
        value = elements.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        found = tuple(float(v) for v in values if v not in (None, ""))
    except Exception:  # pydicom converts when asked, and raises what it likes
        raise ElementError(f"{keyword} is not a number; correct it") from None
    if not all(map(math.isfinite, found)):
        raise ElementError(f"{keyword} is not a finite number; correct it")
    return found


def whole_number(elements: Dataset, keyword: str, default: int | None = None) -> int:
    """The one whole number of an element; ElementError where it is missing and has no default."""
    found = numbers(elements, keyword)
    if not found and default is not None:
        return default
    if not found:
        raise ElementError(f"{keyword} is missing; name images only, or copy it again if it was cut short")
    if len(found) > 1 or found[0] != int(found[0]):
        raise ElementError(f"{keyword} must be one whole number, got {', '.join(f'{v:g}' for v in found)}")
    return int(found[0])


def codes(elements: Dataset, keyword: str) -> tuple[str, ...]:
    """The texts of an element, to be compared with known codes and never to be shown."""
    try:
        value = elements.get(keyword)
    except Exception:  # pydicom converts when asked, and raises what it likes
        return ()
    values = (value,) if isinstance(value, str) else value if isinstance(value, Sequence) else ()
    return tuple(str(v).strip().upper() for v in values)


def code(elements: Dataset, keyword: str) -> str:
    """The only text of an element, "" where it has none or several; see ``codes``."""
    return found[0] if len(found := codes(elements, keyword)) == 1 else ""


def _check_transfer_syntax(path: Path) -> None:
    """Before more is read: deflated elements may be a thousand times larger than their file."""
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if not syntax or not syntax.is_transfer_syntax or not syntax.is_little_endian or syntax.is_deflated:
        raise ElementError("TransferSyntaxUID is none that can be read; store it as Explicit VR Little Endian")


def _close_logs() -> None:
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=name)
