"""What a study has found, in files that are committed: a row of figures and a row of film errors per run.

Every change is made under a lock and by replacing whole files: several processes may write, and a kill at any
moment leaves the old files or the new ones.
"""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from vertebra_kp.core.files import read_csv, read_json, write_csv, write_text
from vertebra_kp.evaluation.metric_table import metrics_for
from vertebra_kp.experiments.study import Settings

KEY = ("variant", "seed")
COLUMNS = (
    *KEY,
    *(metric.name for metric in metrics_for("study")),
    *("steps", "seconds", "images_per_second", "peak_memory_mb", "parameters", "gmacs"),
    *("hardware", "config", "version"),
)

Key = tuple[str, int]  # variant and seed
Row = dict[str, str | float]  # by column; read from a file, every value is text


@dataclass(frozen=True)
class Entry:
    """All that is kept of one run. Rows written before settings and films were kept have neither."""

    row: Row
    films: dict[str, float | None]
    settings: Settings | None

    @property
    def key(self) -> Key:
        return _key(self.row)


class Ledger:
    """``results.csv``, ``films.csv`` (mean radial error of each film, px) and ``configs.json`` of a folder.

    ``configs.json`` holds the resolved config of every row by its hash: a setting that vertebra_kp learns later
    has its default there, so that only a row whose settings really are others is out of date.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results, self.films = folder / "results.csv", folder / "films.csv"
        self.configs = folder / "configs.json"

    def entries(self) -> list[Entry]:
        """In the order of the file."""
        films = {
            _key(row): {name: float(text) if text else None for name, text in row.items() if name not in KEY}
            for row in read_rows(self.films)
        }
        documents: dict[str, dict[str, Any]] = {}
        if self.configs.is_file():
            documents = read_json(self.configs, dict[str, dict[str, Any]], remedy="take it from the last commit")
        settings = {hash_: Settings.from_json(document) for hash_, document in documents.items()}
        return [
            Entry({**row}, films.get(_key(row), {}), settings.get(row.get("config", "")))
            for row in read_rows(self.results)
        ]

    def add(self, entry: Entry) -> None:
        """Write down one run; what was written of the same run before is replaced."""
        with self._locked():
            self._write([*(old for old in self.entries() if old.key != entry.key), entry])

    def take_out(self, keys: Container[Key]) -> None:
        """Remove the rows of these runs."""
        with self._locked():
            self._write([entry for entry in self.entries() if entry.key not in keys])

    def _locked(self) -> BaseFileLock:
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
        write_csv(COLUMNS, [entry.row for entry in entries], self.results)  # last: a row here is a run done


def _key(row: Mapping[str, str | float]) -> Key:
    return str(row["variant"]), int(row["seed"])


def read_rows(path: Path) -> list[dict[str, str]]:
    """None where there is no file."""
    return read_csv(path, remedy="take it from the last commit, or measure again") if path.is_file() else []
