"""Files written whole, so that a kill or a power cut leaves the old or the new content; JSON and CSV, checked."""

import csv
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from pydantic import TypeAdapter, ValidationError

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.text import printable

JPEG_QUALITY = 80
ZIP = b"PK\x03\x04"  # how an archive begins
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` at the end; an exception leaves the old one.

    An OSError names the file: a full disk knows none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)
        raise


def write_text(text: str, path: Path) -> None:
    """UTF-8, also where a file's name in the text is not."""
    with replacing(path) as file:
        file.write(printable(text).encode("utf-8"))


def write_json(value: Any, path: Path) -> None:
    """NaN is refused: it is not JSON."""
    write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", path)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for what is none, infinite numbers and boundless depth."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def read_json(path: Path, kind: Any = Any, *, remedy: str) -> Any:
    """What a JSON file holds, checked to be of ``kind``, any type that pydantic knows.

    Raises UserError, which names file, fault and ``remedy``, for a file that is missing or holds anything else.
    """
    try:
        return TypeAdapter(kind).validate_python(parse_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({fault_of(error)}); {remedy}") from None


def read_csv(path: Path, kind: Any = dict[str, str], *, remedy: str, whole_lines: bool = False) -> list[Any]:
    """The rows of a table that ``write_csv`` wrote, by column; cells that a row lacks are empty.

    Each is checked to be of ``kind``, which also makes numbers of text. ``whole_lines`` leaves out a last line
    without an end, of a write that was cut short. Raises as ``read_json``.
    """
    try:
        lines = io.StringIO(path.read_bytes().decode("utf-8"), newline="")
        kept = (line for line in lines if line.endswith("\n") or not whole_lines)
        rows = list(csv.DictReader(kept, restkey="", restval=""))
        plain = [{plain_cell(key): plain_cell(text) for key, text in row.items() if key} for row in rows]
        return TypeAdapter(list[kind]).validate_python(plain)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({fault_of(error)}); {remedy}") from None


def check_archive(path: Path) -> None:
    """Raises BadZipFile for what is no archive as torch saves it, or differs from its checksums.

    torch itself does not check these. Parts are stored as they are: reading them takes no more than the file.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            raise zipfile.BadZipFile("no archive of torch")
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise zipfile.BadZipFile("its parts are compressed, torch's are not")
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts are larger than the file")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged} differs")


def fault_of(error: Exception) -> str:
    """What is wrong, in one line; of a pydantic model the first fault with its place."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if not isinstance(error, ValidationError):
        return str(error)
    # without the input, which can be large, or small and huge when it is written out
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    more = f", and {len(others)} more" if others else ""
    return f"{'.'.join(map(str, first['loc'])) or 'as a whole'}: {first['msg']}{more}"


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """A column that a row lacks stays empty; what is no column is left out. Cells are made by ``csv_cell``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows([csv_cell(row.get(column, "")) for column in columns] for row in rows)
    write_text(text.getvalue(), path)


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it; all else stays as it is."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value) else value


def plain_cell(text: str) -> str:
    """What ``csv_cell`` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_image(image: np.ndarray, path: Path, *, jpeg_quality: int = JPEG_QUALITY) -> None:
    """``[H, W]`` grey or ``[H, W, 3]`` RGB of uint8, in the format of the path's ending.

    Encoded in memory: OpenCV itself cannot open every name that a file may have, and ends the process on some.
    """
    stored = image if image.ndim == 2 else image[..., ::-1]
    quality = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if path.suffix == ".jpg" else []  # others warn of it
    encoded = cv2.imencode(path.suffix, stored, quality)[1]
    try:
        with replacing(path) as file:
            file.write(encoded.tobytes())
    except OSError as error:
        raise UserError(
            f"{path}: the image cannot be written ({error.strerror}); check folder and space"
        ) from None
