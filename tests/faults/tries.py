"""Every command that takes its time, tried under a fault; and its results, apart from the time they took."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import torch
import yaml
from commands import REPOSITORY
from small_run import SmallRun

from vertebra_kp.data.cache import read_index

HANGS_S = 300
DOCUMENTED = (0, 1, 2, 3, 75, 130)
# What depends on the machine's other work, or on edits of the code while the tests run.
TIMING = ("seconds", "training_seconds", "images_per_second", "peak_memory_mb", "seconds_per_step", "version")
LOGS = ("log.txt", "evaluation.txt", "table.md")
LOG_FOLDERS = ("tensorboard", "plots")


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    writes: int
    seconds: float

    def check(self) -> None:
        """As a command may end: a documented code, and no traceback."""
        assert "Traceback" not in self.output, self.output[-1500:]
        assert self.code in DOCUMENTED, f"exit code {self.code}: {self.output[-1500:]}"


class Nursery:
    """See ``nursery.py``; ``threads`` is its OMP_NUM_THREADS, None for none."""

    def __init__(self, place: Path, threads: str | None = "1") -> None:
        paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": paths}
        environment.pop("OMP_NUM_THREADS", None)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = threads
        command = [sys.executable, str(Path(__file__).with_name("nursery.py")), str(place)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self._started: dict[int, float] = {}

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, words: list[Any], root: Path, **fault: Any) -> int:
        """The number of the process; the keyword arguments are those of ``nursery.py``."""
        pid = self._ask(start=list(map(str, words)), root=str(root), **fault)["pid"]
        self._started[pid] = time.monotonic()
        return pid

    def wait(self, pid: int) -> Ended:
        """A process that hangs is killed, and with it the test."""
        hung = Timer(HANGS_S, kill, [pid])
        hung.start()
        answer = self._ask(wait=pid)
        late = not hung.is_alive()
        hung.cancel()
        assert not late, f"hung: {answer['output'][-1500:]}"
        return Ended(**answer, seconds=time.monotonic() - self._started.pop(pid))

    def run(self, words: list[Any], root: Path, **fault: Any) -> Ended:
        return self.wait(self.start(words, root, **fault))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def kill(pid: int) -> None:
    """A process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


# --- commands -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """``first`` are the words for an empty folder, ``again`` those that go on in one that was left behind."""

    name: str
    first: Callable[[SmallRun, Path], list[Any]]
    again: Callable[[SmallRun, Path], list[Any]]
    before: Callable[[SmallRun, Path], None] = lambda job, out: None
    done: str = ""
    """What it says where it is asked to go on and has nothing left to do, instead of saying nothing."""
    kept: tuple[str, ...] = ("*",)
    """Of the results, what must be there after a fault that costs some files, such as a full disk."""


def _train(config: str) -> Callable[..., list[Any]]:
    def words(job: SmallRun, out: Path, *more: str) -> list[Any]:
        return ["train", "--config", getattr(job, config), "--run-dir", out, "--device", "cpu", *more]

    return words


def _training(name: str, config: str, last: str) -> Job:
    words = _train(config)

    def again(job: SmallRun, out: Path) -> list[Any]:
        return words(job, out, "--resume" if (out / last).is_file() else "--overwrite")

    return Job(name, words, again)


def _predict(job: SmallRun, out: Path, *more: str) -> list[Any]:
    return ["predict", job.images, "--network", job.checkpoint, "--device", "cpu", "--report", "--out", out, *more]


def _predict_on(job: SmallRun, out: Path) -> list[Any]:
    return _predict(job, out, "--resume")


def _evaluate(job: SmallRun, out: Path) -> list[Any]:
    return ["evaluate", "--network", job.checkpoint, "--device", "cpu", "--validation", "--out", out]


def _prepare(*more: Any) -> Callable[[SmallRun, Path], list[Any]]:
    return lambda job, out: ["prepare", "--config", job.config, "--whole-source", "--out", out, *more]


def _cross_validate(job: SmallRun, out: Path) -> list[Any]:
    return ["cross-validate", "--config", job.config, "--out", out]


def _ablate(job: SmallRun, out: Path) -> list[Any]:
    return ["ablate", out]


def _write_study(job: SmallRun, out: Path) -> None:
    out.mkdir()
    study = {"base": str(job.config), "seeds": [0], "baseline": "plain"}
    study |= {
        "variants": {"plain": [], "wide": ["codec.sigma=2.5"]},
        "measured": {"argmax": ["codec.decode=argmax"]},
    }
    (out / "study.yaml").write_text(yaml.safe_dump(study))


JOBS = {
    job.name: job
    for job in (
        _training("train", "config", "checkpoints/last.pt"),
        _training("train a spine network", "spine_config", "last.pt"),
        Job("prepare a cache", _prepare(), _prepare()),
        Job("prepare shards", _prepare("--shards", 2), _prepare("--shards", 2), done="holds shards already"),
        Job("predict", _predict, _predict_on, kept=("predictions.*", "readings.json")),
        Job("evaluate", _evaluate, _evaluate),
        Job("ablate", _ablate, _ablate, _write_study),
        Job("cross-validate", _cross_validate, _cross_validate),
    )
}  # fmt: skip


class Try:
    """A job in a folder that is always the same: paths stand in results."""

    def __init__(self, nursery: Nursery, job: Job, small: SmallRun, place: Path) -> None:
        self.nursery, self.job, self.small = nursery, job, small
        self.out = place / f"out of {job.name}"
        self.whole: dict[str, Any] | None = None
        self.writes, self.seconds = 0, 0.0

    def fresh(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.job.before(self.small, self.out)

    def start(self, *, again: bool = False, **fault: Any) -> int:
        words = (self.job.again if again else self.job.first)(self.small, self.out)
        return self.nursery.start(words, self.out, **fault)

    def run(self, **how: Any) -> Ended:
        return self.nursery.wait(self.start(**how))

    def undisturbed(self) -> None:
        """What comes of the job, and how long it takes, in seconds and in writes."""
        self.fresh()
        ended = self.run()
        assert ended.code == 0, ended.output[-1500:]
        self.whole = results(self.out)
        self.writes, self.seconds = ended.writes, ended.seconds

    def check_resumed(self, kept: tuple[str, ...] = ("*",)) -> None:
        """The job goes on without a fault, and ends with what an undisturbed one gives."""
        ended = self.run(again=True)
        assert ended.code == 0 or (self.job.done and self.job.done in ended.output), ended.output[-1500:]
        assert self.whole is not None
        found = results(self.out)
        different = sorted(
            name
            for name in {*found, *self.whole}
            if found.get(name) != self.whole.get(name) and any(Path(name).match(pattern) for pattern in kept)
        )
        assert not different, f"another result of {self.job.name}: {different}"


# --- results --------------------------------------------------------------------------------------------------


def results(folder: Path) -> dict[str, Any]:
    """By file, what stands in it apart from times; logs, locks and what was drawn of times are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or path.name in LOGS or path.name.endswith("lock") or set(LOG_FOLDERS) & set(name.parts):
            continue
        found[str(name)] = _content(path)
    for index in folder.glob("*/index.jsonl"):  # films lie in the order in which they were read
        name = index.parent.name
        del found[f"{name}/films.bin"]
        found[f"{name}/index.jsonl"] = _cached(index)
    return found


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".pt":
        return _digest(torch.load(io.BytesIO(content), weights_only=True))
    if path.suffix == ".npz":
        return _digest(dict(np.load(io.BytesIO(content))))
    if path.suffix == ".json":
        return _without_times(json.loads(content))
    if path.suffix == ".jsonl":
        return sorted(content.splitlines())
    if path.suffix == ".csv":
        lines = [line.split(",") for line in content.decode().splitlines()]
        columns = [i for i, column in enumerate(lines[0]) if column not in TIMING]
        return sorted([line[i] for i in columns if i < len(line)] for line in lines)
    return hashlib.sha256(content).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMING}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _digest(value: Any) -> Any:
    """Arrays by their bytes."""
    if isinstance(value, dict):
        return {str(key): _digest(item) for key, item in value.items() if key not in TIMING}
    if isinstance(value, list | tuple):
        return [_digest(item) for item in value]
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return repr(value)


def _cached(index: Path) -> dict[str, str]:
    input_size = tuple(map(int, index.parent.name.partition("-")[0].split("x")))
    pixels, found = (index.parent / "films.bin").read_bytes(), {}
    for entry in read_index(index.parent, input_size).values():
        kept = pixels[entry.offset : entry.end(input_size)]
        found[Path(entry.file).name] = hashlib.sha256(kept).hexdigest()
    return found
