"""The folder of one run: what stands where, and when an existing one may be used."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vertebra_kp.config import Config
from vertebra_kp.config_io import load_config, save_config
from vertebra_kp.errors import UserError

# Where a run is taken up on another machine, these may differ without changing a single weight.
MAY_DIFFER = (
    "data.root",
    "data.cache",
    "data.shards",
    "data.workers",
    "train.save_every_steps",
    "train.log_every_steps",
)


class RunFolderError(UserError):
    """The folder cannot be used as asked; the message says how it can."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def films(self) -> Path:
        return self.path / "films.csv"

    def contents(self) -> list[Path]:
        """What a run writes; nothing else in the folder is ever removed."""
        names = (
            "config.yaml",
            "checkpoints",
            "metrics.json",
            "metrics.csv",
            "films.csv",
            "tensorboard",
            "calibration.json",
        )
        return [self.path / name for name in names if (self.path / name).exists()]


def open_run_folder(path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    """Make the folder ready and save the resolved config in it; raises as ``check_run_folder``."""
    check_run_folder(path, config, resume=resume, overwrite=overwrite)
    folder = RunFolder(path)
    if not resume:
        for item in folder.contents():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        path.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.config)
    return folder


def run_folder_lock(path: Path) -> FileLock:
    """The lock that the one process holds which trains in the folder; the folder must exist."""
    return FileLock(path / ".lock")


@contextmanager
def lock_run_folder(path: Path) -> Iterator[None]:
    """Hold the folder's lock; raises RunFolderError where another process trains in it."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        with run_folder_lock(path).acquire(timeout=0):
            yield
    except Timeout:
        raise RunFolderError(
            f"another process trains in {path}; wait for its end, or stop it and give --resume"
        ) from None


def check_run_folder(path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raises RunFolderError where the folder cannot be used as asked, and touches nothing.

    That is when it holds a run and neither ``resume`` nor ``overwrite`` is asked for, when there is nothing to
    resume, or when the config differs from the run's own.
    """
    folder = RunFolder(path)
    if resume:
        if not folder.last.is_file():
            remedy = (
                "--overwrite starts the run anew" if folder.contents() else "leave out --resume to start the run"
            )
            raise RunFolderError(f"--resume: {folder.last} does not exist; {remedy}")
        if changed := differences(load_config(folder.config), config):
            listed = "\n  ".join(f"{key}: {old} in the run, {new} now" for key, (old, new) in changed.items())
            raise RunFolderError(
                f"--resume: the config differs from the one that {path} was started with:\n  {listed}\n"
                f"give the same config, or another --run-dir"
            )
    elif folder.contents() and not overwrite:
        raise RunFolderError(
            f"{path} already holds a run; --resume continues it, --overwrite replaces it, "
            "--run-dir DIR takes another folder"
        )
    elif path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; --run-dir DIR takes another place")


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, as dotted keys with both values; what MAY_DIFFER is left out."""
    before, after = flat_config(old), flat_config(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(MAY_DIFFER)
    }


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one level of dotted keys."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def flat_config(config: Config) -> dict[str, Any]:
    """The config as dotted keys, for tables of hyperparameters."""
    return _flat(config.model_dump(mode="json"))


def write_json(value: Any, path: Path) -> None:
    """Atomically: readers see the old file or the new one. NaN is refused: it is not JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
