"""Runs of a study in processes of their own, several at a time: one that fails leaves the others alive."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from vertebra_kp.core.exit_codes import INTERRUPTED
from vertebra_kp.experiments.collect import is_finished, missing, record
from vertebra_kp.experiments.study import Planned, Study
from vertebra_kp.training.run_folder import RunFolder, run_folder_lock

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "vertebra_kp")
LOG = "log.txt"
TAIL = 12  # lines of a failed run's log that are shown
POLL_S = 0.3
BAR_S = 60  # between two states of a progress bar: they all stay in the log


@dataclass
class Stop:
    """Set by a signal: runs write their checkpoints and end, no other is started."""

    requested: bool = False


def stop_on_signals() -> Stop:
    """A stop that SIGTERM and Ctrl-C ask for."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(stop, "requested", True))
    return stop


def run_to_end(run: Planned, stop: Stop, program: Sequence[str] | None = None) -> int:
    """Train or measure one run, unless its folder holds the finished run; returns the exit code.

    ``program`` is the command line's beginning, by default PROGRAM. Output goes to ``log.txt`` in the run folder.
    A run that another process is at, or that one which was killed has left behind, is waited for.
    """
    run.run_dir.mkdir(parents=True, exist_ok=True)
    ours = FileLock(run.run_dir.with_name(f"{run.run_dir.name}.lock"))
    with _held(ours, run, stop):
        with _held(run_folder_lock(run.run_dir), run, stop):
            pass  # released again: the run itself takes it
        if stop.requested:
            return INTERRUPTED
        # Finished, but its checkpoint deleted, it is here because something is to measure that.
        done = is_finished(run) and RunFolder(run.run_dir).best.is_file()
        return 0 if done else run_child([*(program or PROGRAM), *_command(run)], run.run_dir / LOG, stop)


def _held(lock: BaseFileLock, run: Planned, stop: Stop) -> AbstractContextManager:
    """A lock of the run, waited for and held, unless a stop comes first."""
    waiting = False
    while not stop.requested:
        try:
            return lock.acquire(timeout=POLL_S)
        except Timeout:
            if not waiting:
                log.info("%s: waiting for another process that is at it", run)
            waiting = True
    return nullcontext()


def _command(run: Planned) -> list[str]:
    if run.checkpoint is not None:
        command = ["evaluate", "--network", str(run.checkpoint), "--validation", "--out", str(run.run_dir)]
        return [*command, "--set", *run.overrides]
    command = ["train", "--config", str(run.base), "--run-dir", str(run.run_dir), "--set", *run.overrides]
    return [*command, "--resume" if RunFolder(run.run_dir).last.exists() else "--overwrite"]


def run_child(command: list[str], path: Path, stop: Stop) -> int:
    """Run a command that writes to the end of ``path``, ended when a stop comes; returns its exit code."""
    environment = {"TQDM_MININTERVAL": str(BAR_S), **os.environ}
    with path.open("a", encoding="utf-8") as output:
        print("$", *command, file=output, flush=True)
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        terminated = False
        while True:
            try:
                code = process.wait(timeout=POLL_S)
                return INTERRUPTED if terminated and code else code
            except subprocess.TimeoutExpired:
                if stop.requested and not terminated:
                    process.terminate()  # it writes a checkpoint
                    terminated = True
            except KeyboardInterrupt:  # on a cluster, where a stop comes so
                stop.requested = True


def record_ended(study: Study, ended: Iterable[tuple[Planned, int]], stop: Stop) -> list[Planned]:
    """Write down runs as they end, one line of text each; returns those that failed."""
    failed = []
    for run, code in ended:
        if code == INTERRUPTED:
            stop.requested = True
        elif code:
            failed.append(run)
            tell_failed(run, code)
        else:
            row = record(study, run)
            time = f", {float(row['seconds']) / 60:.1f} minutes" if run.trains else ""
            print(f"{run}: {float(row['mre_px']):.3f} px{time} ({len(missing(study))} to go)", flush=True)
    return failed


def tell_failed(run: Planned, code: int) -> None:
    path = run.run_dir / LOG
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    tail = "\n".join(lines[-TAIL:])
    print(f"failed: {run}, exit code {code}; {path} ends with\n{tail}", file=sys.stderr, flush=True)


def run_several(runs: list[Planned], work: Callable[[Planned], int], jobs: int) -> Iterator[tuple[Planned, int]]:
    """``work`` on every run, ``jobs`` at a time; yields each run with its exit code as it ends."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, run): run for run in runs}
        for future in as_completed(futures):
            run = futures[future]
            try:
                code = future.result()
            except OSError as error:  # a full disk, say: the other runs go on
                log.error("%s: %s", run, error)
                code = 1
            yield run, code
