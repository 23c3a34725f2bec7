"""Where writers put their files: below the folder that was named, never through a link to another place."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import replacing


def path_below(folder: Path, name: str, suffix: str = "") -> Path:
    """The file ``name``, relative and with forward slashes, in ``folder``; ``suffix`` replaces its own.

    Raises UserError when it would lie outside, also through a link.
    """
    folder = folder.expanduser()
    relative = PurePosixPath(name)
    if not relative.name or relative.is_absolute() or ".." in relative.parts or {"\\", "\0"} & set(name):
        raise UserError(f"file of a film must be relative, with forward slashes and without .., got {name!r}")
    path = folder / (relative.with_suffix(suffix) if suffix else relative)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{path} would be written through a link to {path.resolve()}, outside {folder}; remove the link"
        )
    return path


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raises UserError that names the first file that is there already."""
    if there := [path for path in paths if path.exists()]:
        raise UserError(f"{there[0]} exists ({len(there)} files do); name another folder, or move it away")


def write_texts(folder: Path, texts: Iterable[tuple[str, str]], suffix: str = "") -> None:
    """UTF-8 files in ``folder`` by name, with the line ends that the texts have; ``suffix`` as in ``path_below``.

    Raises UserError, and writes nothing, for a name that leads out of ``folder``, for two that share a file, where
    a file is there already, for it may hold somebody's labels, and for a text that UTF-8 cannot hold: a name of
    bytes that are no UTF-8.
    """
    names: dict[Path, str] = {}
    contents: dict[Path, bytes] = {}
    for name, text in texts:
        path = path_below(folder, name, suffix)
        if path in names:
            raise UserError(f"films {names[path]!r} and {name!r} would share {path}; rename one")
        names[path] = name
        try:
            contents[path] = text.encode()
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 20) : error.end + 20]
            raise UserError(f"{path} cannot hold {around!r}: a name in it is not UTF-8; rename it") from error
    refuse_existing(contents)
    for path, content in contents.items():
        with replacing(path) as file:
            file.write(content)
