"""One case of a fuzz run: how it ended, and what it did meanwhile that no reader of files may do."""

import faulthandler
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.core.errors import UserError

SLOW_S = 10.0  # of processor time: others may keep the processors busy
HANGS_S = 120.0  # by the clock, after which the process is ended from outside Python
MOST_BYTES = 1.5e9  # of the process, with all that it has imported
PACKAGE = "vertebra_kp"
LONGEST_LINE = 600  # characters of a message that is kept

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")
NETWORK = ("socket.connect", "socket.getaddrinfo")
# git says which version of the code it is; a decoder may run apart, in another Python.
ALLOWED_PROGRAMS = ("git", Path(sys.executable).name, "python", "python3")
ANYWHERE = (os.devnull, "/dev/shm")


@dataclass
class Outcome:
    """``fault`` is None where the case was taken, or refused by one message that is meant for a person."""

    refused: bool
    message: str = ""
    fault: str | None = None


class Watch:
    """An audit hook cannot be taken away: there is one, which looks while a case runs."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._seen: list[str] = []
        sys.addaudithook(self._hook)

    def run(self, case: Callable[[], object], folder: Path) -> Outcome:
        """``case`` may write below ``folder`` alone."""
        _forget_peak()
        self._seen, self._folder = [], folder.resolve()
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        start = time.process_time()
        try:
            outcome = _outcome(case)
        finally:
            self._folder = None
            faulthandler.cancel_dump_traceback_later()
        seconds, peak = time.process_time() - start, _peak_bytes()
        if outcome.fault is None and self._seen:
            outcome.fault = self._seen[0]
        if outcome.fault is None and seconds > SLOW_S:
            outcome.fault = f"took {seconds:.0f} s"
        if outcome.fault is None and peak > MOST_BYTES:
            outcome.fault = f"took {peak / 1e9:.1f} GB"
        return outcome

    def _hook(self, event: str, arguments: tuple) -> None:
        if self._folder is None:
            return
        if event in PROGRAMS and Path(str(arguments[0])).name not in ALLOWED_PROGRAMS:
            self._seen.append(f"started {arguments[0]}")
        elif event in NETWORK:
            self._seen.append(f"asked the network: {event}")
        elif event == "open":
            path, mode, flags = arguments
            written = set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if written:
                self._check(event, path)
        elif event in WRITES:
            self._check(event, arguments[0])

    def _check(self, event: str, path: object) -> None:
        assert self._folder is not None
        if isinstance(path, int):
            return
        name = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        if not f"{name}/".startswith((f"{self._folder}/", *ANYWHERE)) and "__pycache__" not in name:
            self._seen.append(f"{event} outside: {name}")


def _outcome(case: Callable[[], object]) -> Outcome:
    try:
        case()
    except (UserError, UsageError, OSError) as error:
        return Outcome(refused=True, message=str(error)[:LONGEST_LINE])
    except Exception as error:
        return Outcome(refused=False, fault=f"{type(error).__name__} {_place(error)}", message=str(error)[:200])
    return Outcome(refused=False)


def _place(error: Exception) -> str:
    """The innermost line of the package that the error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"/{PACKAGE}/" in frame.filename]
    if not frames:
        return "outside the package"
    name = frames[-1].filename.rpartition(f"/{PACKAGE}/")[2]
    return f"in {name}, {frames[-1].name}"


def _forget_peak() -> None:
    with suppress(OSError):  # the peak of all cases together, then
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
