"""The folder of one run: what stands where, and when an existing one may be used."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vertebra_kp.config.differences import differences
from vertebra_kp.config.io import load_config, save_config
from vertebra_kp.config.schema import Config
from vertebra_kp.core.errors import UserError


class RunFolderError(UserError):
    """The folder cannot be used as asked; the message says how it can."""


class RunFolder:
    """What stands where in the folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.last, self.best = self.checkpoints / "last.pt", self.checkpoints / "best.pt"
        self.metrics = path / "metrics.json"  # the final report
        self.films = path / "films.csv"  # its errors, film by film
        self.curves = path / "metrics.csv"  # headline figures of every evaluation
        self.tensorboard, self.mlflow = path / "tensorboard", path / "mlflow"
        self.wandb = path / "wandb"  # named by the package
        self.tracker_ids = path / "trackers.json"
        self.calibration = path / "calibration.json"  # made later, from best.pt
        self.lock = path / ".lock"

    def contents(self) -> list[Path]:
        """What a run writes; nothing else in the folder is ever removed."""
        written = (self.config, self.checkpoints, self.metrics, self.films, self.curves, self.calibration)
        logs = (self.tensorboard, self.mlflow, self.wandb, self.tracker_ids)
        return [path for path in (*written, *logs) if path.exists()]


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
    return FileLock(RunFolder(path).lock)


@contextmanager
def lock_run_folder(path: Path) -> Iterator[None]:
    """Hold the folder's lock; raises RunFolderError where another process trains in it."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        with run_folder_lock(path).acquire(timeout=0):
            yield
    except Timeout:
        raise RunFolderError(
            f"another process trains in {path}; wait for its end, or stop it and resume the run"
        ) from None


def check_run_folder(path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raises RunFolderError, and touches nothing, where the folder cannot be used as asked: it holds a run that is
    neither resumed nor overwritten, there is nothing to resume, or the config differs from the run's own.
    """
    folder = RunFolder(path)
    if resume:
        if not folder.last.is_file():
            remedy = "overwrite the run to start anew" if folder.contents() else "start the run without resuming"
            raise RunFolderError(f"nothing to resume: {folder.last} does not exist; {remedy}")
        if changed := differences(load_config(folder.config), config):
            listed = "\n  ".join(f"{key}: {old} in the run, {new} now" for key, (old, new) in changed.items())
            raise RunFolderError(
                f"cannot resume: the config differs from the one that {path} was started with:\n  {listed}\n"
                "give the same config, or choose another folder"
            )
    elif folder.contents() and not overwrite:
        raise RunFolderError(f"{path} already holds a run; resume it, overwrite it, or choose another folder")
    elif path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; choose another folder")
