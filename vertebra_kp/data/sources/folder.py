"""Films without labels: files, folders and patterns as a list of paths."""

import glob
from itertools import chain
from pathlib import Path

from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.images import FILM_SUFFIXES
from vertebra_kp.data.sources.problems import SourceError

DICOM_INDEX = "DICOMDIR"  # the list of files that comes with a folder of DICOM films (PS3.10, section 8.6)


def find_films(inputs: list[str]) -> list[Path]:
    """Paths of the films that ``inputs`` name, in their order, each once.

    A folder gives its films at any depth, sorted, hidden files left out; a pattern (``*``, ``?``, ``[]``,
    ``**``) the films and folders it matches; anything else is taken as the name of a film, and reading it
    tells whether it is one. In folders and patterns, films are what has the suffix of one, and DICOM files
    named without a suffix (``IM0001``) or by numbers alone (``1.2.840.10008``). Raises SourceError naming every
    folder and pattern that gives nothing.
    """
    found: dict[Path, None] = {}
    problems = [] if inputs else ["no input; name films, folders or patterns"]
    for name in map(str, inputs):
        path = Path(name).expanduser()
        if path.is_dir():
            films = _films_under(path)
            if not films:
                problems.append(f"folder {path} holds no film; wanted {', '.join(FILM_SUFFIXES)}")
        elif not path.exists() and glob.has_magic(name):
            matches = map(Path, glob.glob(str(path), recursive=True))
            under = (_films_under(match) if match.is_dir() else [match] for match in matches)
            films = sorted(film for film in set(chain.from_iterable(under)) if _is_film(film))
            if not films:
                problems.append(f"pattern {name} matches no film; check it")
        else:
            films = [path]
        found.update(dict.fromkeys(films))
    if problems:
        raise SourceError("; ".join(problems))
    return list(found)


def _films_under(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file() and _is_film(path)
    )


def _is_film(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix and not suffix[1:].isdigit():
        return suffix in FILM_SUFFIXES
    return path.name != DICOM_INDEX and path.is_file() and is_dicom(path)
