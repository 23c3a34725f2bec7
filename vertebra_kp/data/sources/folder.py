"""Films without labels: files, folders and patterns as a list of paths."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.images import FILM_SUFFIXES
from vertebra_kp.data.sources.files import on_disk
from vertebra_kp.data.sources.problems import SourceError

log = logging.getLogger(__name__)

DICOM_INDEX = "DICOMDIR"  # the list of files that comes with a folder of DICOM films (PS3.10, section 8.6)
# Results of predict and evaluate: the files that mark a folder of them, and the pictures in it.
RESULT_FILES = ("predictions.jsonl", "predictions.json")
RESULT_FOLDERS = ("overlays", "reports", "attention", "gsps")
RESULT_PICTURES = ("worst_films.png",)


def find_films(inputs: list[str], *, results: Path | None = None) -> list[Path]:
    """Paths of the films that ``inputs`` name, in their order, each once.

    A folder gives its films at any depth, also through links, sorted; a pattern (``*``, ``?``, ``[]``, ``**``) the
    films and folders it matches; anything else is taken as the name of a film, and reading it tells whether it is
    one. In folders and patterns, films are what has the suffix of one, and DICOM files named without a suffix
    (``IM0001``) or by numbers alone (``1.2.840.10008``).

    Left out there, and counted in a log message: what is hidden, what is no film, pictures of earlier results,
    and all of ``results``, the folder of the new ones, unless an input lies in it. Raises SourceError naming
    every folder and pattern that gives nothing.
    """
    found: dict[Path, None] = {}
    problems = [] if inputs else ["no input; name films, folders or patterns"]
    paths = [Path(name).expanduser() for name in map(str, inputs)]
    if results is not None and any(_real(path).is_relative_to(_real(results)) for path in paths):
        results = None
    search = _Search(results)
    for name, path in zip(map(str, inputs), paths, strict=True):
        if path.is_dir():
            films = search.under(path)
            if not films:
                problems.append(f"folder {path} holds no film; wanted {', '.join(FILM_SUFFIXES)}")
        elif not path.exists() and glob.has_magic(name):
            films = search.matching(path)
            if not films:
                problems.append(f"pattern {name} matches no film; check it")
        else:
            films = [on_disk(path)]
        found.update(dict.fromkeys(films))
    if search.left_out:
        log.info("left out: %s", "; ".join(f"{count} {what}" for what, count in search.left_out.items()))
    if problems:
        raise SourceError("; ".join(problems))
    return list(found)


def films_under(folder: Path) -> list[Path]:
    """The films in a folder at any depth, sorted; what is left out is not told."""
    return _Search().under(folder)


def files_under(folder: Path) -> list[Path]:
    """Every file in a folder at any depth that is not hidden, also through links; sorted."""
    return sorted(_Search().walk(folder))


class _Search:
    """Goes through folders, and counts what is ``left_out``."""

    def __init__(self, results: Path | None = None) -> None:
        self.left_out: Counter[str] = Counter()
        self._results = results and _real(results)

    def under(self, folder: Path) -> list[Path]:
        return sorted(path for path in self.walk(folder) if self._is_film(path))

    def matching(self, pattern: Path) -> list[Path]:
        """The films that a pattern matches, and those under the folders that it matches."""
        films: dict[tuple[Path, str], Path] = {}  # by where they really lie: links may lead to a folder twice
        for match in sorted(self._matches(pattern), key=lambda path: (path.is_symlink(), path)):
            if match.is_dir():
                found = self.under(match) if self._enters(match) else []
            elif self._results is not None and _real(match).is_relative_to(self._results):
                self.left_out[f"images of results in {self._results}"] += 1
                found = []
            else:
                found = [match] if self._is_film(match) else []
            for film in found:
                films.setdefault((_real(film.parent), film.name), film)
        return sorted(films.values())

    def _matches(self, pattern: Path) -> Iterator[Path]:
        parts = pattern.parts
        if "**" not in parts:
            yield from map(Path, glob.glob(str(pattern)))
            return
        # glob would follow a link that leads back, over and over
        plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        for path in self.walk(Path(*parts[:plain])):
            if _fits(path.parts[plain:], parts[plain:]):
                yield path

    def walk(self, folder: Path) -> Iterator[Path]:
        """The files in a folder and the folders in it, each folder once; those that are linked come last."""
        folders, walked = [folder], set[Path]()
        for top in folders:
            for root, names, files in os.walk(top, onerror=_say_unreadable):
                here = Path(root)
                if (real := _real(here)) in walked:
                    self.left_out["links to folders that were searched already"] += 1
                    names.clear()
                    continue
                walked.add(real)
                entered = [here / name for name in sorted(names) if self._enters(here / name)]
                folders += [path for path in entered if path.is_symlink()]
                names[:] = [path.name for path in entered if not path.is_symlink()]
                for path in (here / name for name in files):
                    if path.name.startswith("."):
                        self.left_out["hidden files"] += 1
                    elif path.name in RESULT_PICTURES and _holds_results(here):
                        self.left_out[f"images of results in {here}"] += 1
                    else:
                        yield path

    def _enters(self, folder: Path) -> bool:
        if folder.name.startswith("."):
            self.left_out["hidden folders"] += 1
            return False
        is_results = folder.name in RESULT_FOLDERS and _holds_results(folder.parent)
        if not is_results and _real(folder) != self._results:
            return True
        names = (name for *_, names in os.walk(folder) for name in names)
        if images := sum(Path(name).suffix.lower() in FILM_SUFFIXES for name in names):
            self.left_out[f"images of results in {folder}"] += images
        return False

    def _is_film(self, path: Path) -> bool:
        if not path.is_file():
            self.left_out["links that lead nowhere, pipes or devices"] += 1
            return False
        suffix = path.suffix.lower()
        if suffix and not suffix[1:].isdigit():
            is_film = suffix in FILM_SUFFIXES
        else:
            is_film = path.name != DICOM_INDEX and is_dicom(path)
        if not is_film:
            self.left_out["files that are no images"] += 1
        return is_film


def _real(path: Path) -> Path:
    """Without links; where they lead in a circle, the path itself."""
    return Path(os.path.realpath(path))


def _holds_results(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RESULT_FILES)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is one that a pattern matches, or lies in a folder that it matches."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _say_unreadable(error: OSError) -> None:
    log.warning("left out: folder %s cannot be read (%s)", error.filename, error.strerror)
