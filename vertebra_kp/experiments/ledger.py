"""What a study has found, in files that are committed: a row of figures and a row of film errors per run.

Every change is made under a lock and by replacing whole files: several processes may write, and a kill at any
moment leaves the old files or the new ones.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vertebra_kp.core.files import write_csv, write_text
from vertebra_kp.experiments.study import Settings

KEY = ("variant", "seed")
FIGURES = ("mre_px", "median_px", "level_shift_rate", "presence_precision", "presence_recall")
COLUMNS = (
    *KEY,
    *FIGURES,
    *("steps", "seconds", "images_per_second", "peak_memory_mb", "parameters", "gmacs"),
    *("hardware", "config", "version"),
)
TIMING = ("seconds", "images_per_second", "peak_memory_mb")
"""Columns that depend on what else the machine did, and on interruptions; all others do not."""

Key = tuple[str, int]  # variant and seed
Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """All that is kept of one run. Rows written before settings and films were kept have neither."""

    row: Row
    films: dict[str, float | None]
    settings: Settings | None

    @property
    def key(self) -> Key:
        return self.row["variant"], int(self.row["seed"])


class Ledger:
    """``results.csv``, ``films.csv`` (mean radial error of each film, px) and ``configs.json`` of a folder.

    ``configs.json`` holds the resolved config of every row by its hash: a setting that vertebra_kp learns later
    has its default there, so that only a row whose settings really are others is out of date.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results, self.films, self.configs = (
            folder / name for name in ("results.csv", "films.csv", "configs.json")
        )

    def entries(self) -> list[Entry]:
        """In the order of the file."""
        films = {_key(row): _errors(row) for row in _read_csv(self.films)}
        settings = self._settings()
        return [
            Entry(row, films.get(_key(row), {}), settings.get(row.get("config", "")))
            for row in _read_csv(self.results)
        ]

    def _settings(self) -> dict[str, Settings | None]:
        if not self.configs.is_file():
            return {}
        documents = json.loads(self.configs.read_text(encoding="utf-8"))
        return {hash_: _settings_or_none(document) for hash_, document in documents.items()}

    def add(self, entry: Entry) -> None:
        """Write down one run; what was written of the same run before is replaced."""
        with self._locked():
            self._write([*(old for old in self.entries() if old.key != entry.key), entry])

    def take_out(self, keys: Iterable[Key]) -> list[Entry]:
        """Remove the rows of these runs and return them."""
        with self._locked():
            entries = self.entries()
            self._write([entry for entry in entries if entry.key not in keys])
        return [entry for entry in entries if entry.key in keys]

    def _locked(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "ledger.lock")

    def _write(self, entries: list[Entry]) -> None:
        known = {entry.row["config"]: entry.settings for entry in entries if entry.settings is not None}
        lines = [f"{json.dumps(hash_)}: {json.dumps(known[hash_].to_json())}" for hash_ in sorted(known)]
        write_text("{\n" + ",\n".join(lines) + "\n}\n", self.configs)
        with_films = [entry for entry in entries if entry.films]
        ids = dict.fromkeys(film for entry in with_films for film in entry.films)
        rows = [dict(zip(KEY, entry.key, strict=True)) | entry.films for entry in with_films]
        write_csv([*KEY, *ids], rows, self.films)
        write_csv(COLUMNS, (entry.row for entry in entries), self.results)  # last: a row here is a run done


def _settings_or_none(document: dict[str, Any]) -> Settings | None:
    try:
        return Settings.from_json(document)
    except ValueError:
        return None  # of another version of vertebra_kp


def _key(row: Row) -> Key:
    return row["variant"], int(row["seed"])


def _errors(row: Row) -> dict[str, float | None]:
    return {name: float(text) if text else None for name, text in row.items() if name not in KEY}


def _read_csv(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
