"""Elements of a DICOM file: only those asked for are read, and no message quotes what stands in one.

Any element may hold what identifies a patient, also one that should not. pydicom and highdicom quote values in
their logs and warnings: both are closed here.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vertebra_kp.core.errors import UserError
from vertebra_kp.data.film_file import FilmError, elements_start, open_film

FIRST_BYTES = 132  # of a file: what tells where its elements begin
META_GROUP = 0x0002  # PS3.10, section 7.1


class ElementError(ValueError):
    """An element that cannot be used; the message names it and the remedy, and quotes numbers only."""


@contextmanager
def dicom_elements(path: Path, keywords: Iterable[str]) -> Iterator[Dataset]:
    """Those of the named elements that a file has; its pixels, and all other elements, are not read.

    A file without file meta information is read in the encoding that it begins with, and the data set says so:
    ``encoding_is_guessed``. Whatever goes wrong inside the block becomes a FilmError that quotes no element.
    """
    _close_logs()
    with open_film(path) as file:
        try:
            syntax = _transfer_syntax(file)
            elements = dcmread(file, stop_before_pixels=True, specific_tags=list(keywords), force=True)
            if syntax is None:
                implicit, _ = elements.original_encoding
                elements.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
            elements.encoding_is_guessed = syntax is None
            yield elements
        except UserError:
            raise
        except ElementError as error:
            raise FilmError(f"{path}: {error}") from None
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


def _transfer_syntax(file: BinaryIO) -> UID | None:
    """What the file says of its encoding, None where it has no file meta information; ``file`` is put back.

    Checked before more is read: deflated elements may be a thousand times larger than their file.
    """
    start = elements_start(file.read(FIRST_BYTES))
    if start is None:
        raise ElementError("not a DICOM file (it lacks the mark DICM); export it again, or convert it to PNG")
    file.seek(start)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != META_GROUP)
    file.seek(0)
    syntax = meta.get("TransferSyntaxUID")
    if syntax and not (syntax.is_transfer_syntax and syntax.is_little_endian and not syntax.is_deflated):
        raise ElementError("TransferSyntaxUID is none that can be read; store it as Explicit VR Little Endian")
    return syntax or None


def _close_logs() -> None:
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=name)
