"""Files that annotation formats name: films stay inside their folder, texts stay bounded."""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

MAX_TEXT_BYTES = 512 * 2**20  # of one annotation file; 100,000 films of 68 points as COCO take 400 MB


def film_inside(root: Path, file: str) -> Path:
    """The film ``file``, a path relative to ``root`` with either slash.

    Raises ValueError when it is absolute, leads out of ``root`` (through a link too), or is not there.
    """
    relative = PurePosixPath(PureWindowsPath(file).as_posix())
    anchored = relative.is_absolute() or PureWindowsPath(file).anchor
    if not file or anchored or ".." in relative.parts or "\0" in file:
        raise ValueError(f"file must be relative to the folder of the films and stay inside it, got {file!r}")
    path = root / relative
    if not path.is_file():
        raise ValueError(f"film {file} is not in {root}; copy it there, or take its labels out")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"film {file} is a link to a place outside {root}; copy the film there")
    return path


def read_text(path: Path) -> str:
    """A UTF-8 text of bounded size; ValueError says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"{path} is larger than {MAX_TEXT_BYTES // 2**20} MiB: no annotation file is; check it")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error})") from error


def read_json(path: Path) -> Any:
    """A JSON text of bounded size; ValueError says what is wrong with it."""
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for an annotation file; check it") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
