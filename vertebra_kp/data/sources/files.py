"""Files that annotation formats name: films stay inside their folder, texts stay bounded."""

import json
import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

MAX_TEXT_BYTES = 512 * 2**20  # of one annotation file; 100,000 films of 68 points as COCO take 400 MB


def forward_slashes(file: str) -> str:
    """A path as it may have been saved on Windows, with forward slashes."""
    return PureWindowsPath(file).as_posix()


def film_inside(root: Path, file: str, folders: Sequence[str] = ("",)) -> Path:
    """The film ``file``, a path with either slash relative to the first of ``folders`` below ``root`` that has it.

    Raises ValueError when it is absolute, leads out of ``root`` (through a link too), or is not there.
    """
    relative = PurePosixPath(forward_slashes(file))
    anchored = relative.is_absolute() or PureWindowsPath(file).anchor
    if not file or anchored or ".." in relative.parts or "\0" in file:
        raise ValueError(f"file must be relative to the folder of the films and stay inside it, got {file!r}")
    try:
        paths = [
            on_disk(root / folder / relative) for folder in folders if ".." not in PurePosixPath(folder).parts
        ]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            where = " or ".join(str(root / folder) for folder in folders)
            raise ValueError(f"film {file!r} is not in {where}; copy it there, or take its labels out")
        inside = path.resolve().is_relative_to(root.resolve())
    except OSError as error:  # of a name that is too long, for example
        raise ValueError(f"film {file!r} cannot be looked for ({error.strerror}); correct its name") from error
    if not inside:
        raise ValueError(f"film {file!r} is a link to a place outside {root}; copy the film there")
    return path


def on_disk(path: Path) -> Path:
    """The path as the disk spells it: macOS takes accents apart (NFD), labels mostly have them whole (NFC).

    As it is where it exists, and where no file or several files have that name after NFC.
    """
    if os.path.lexists(path) or path.parent == path:
        return path
    folder = on_disk(path.parent)
    try:
        spelled = _spellings(folder, folder.stat().st_mtime_ns).get(nfc(path.name), [])
    except OSError:
        return path
    return folder / spelled[0] if len(spelled) == 1 else path


@lru_cache(maxsize=64)
def _spellings(folder: Path, changed: int) -> dict[str, list[str]]:
    """The names in a folder that was ``changed`` then, by their NFC."""
    found: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        found.setdefault(nfc(name), []).append(name)
    return found


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def read_text(path: Path, *, within: Path | None = None) -> str:
    """A UTF-8 text of bounded size; ValueError says what is wrong, or that it is a link out of ``within``."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if within is not None and not path.resolve().is_relative_to(within.resolve()):
        raise ValueError(f"{path} is a link to a place outside {within}; copy the file there")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"{path} is larger than {MAX_TEXT_BYTES // 2**20} MiB: no annotation file is; check it")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error})") from error


def read_json(path: Path, *, within: Path | None = None) -> object:
    """A JSON text of bounded size; ValueError as ``read_text`` and for what is no JSON."""
    text = read_text(path, within=within)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for an annotation file; check it") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
