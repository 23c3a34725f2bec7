"""The process that commands are forked from, with everything imported: a try costs what the command costs.

It reads a JSON line per order from stdin and answers each with one on stdout:

    {"start": [COMMAND, WORD, ...], "root": FOLDER, "at": N, "file_size": BYTES, "as_owner": true} -> {"pid": PID}
    {"wait": PID} -> {"code": CODE, "output": TEXT, "writes": N}

With ``at`` the process and all that it started are killed at the N-th time that it creates, opens for writing,
renames or removes something below ``root``. ``file_size`` is the size of file that it cannot write beyond, as on a
full disk. ``nobody`` takes away the rights of root. Commands that start others (ablate, cross-validate) fork them.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
from tiny_job import thin_efficientnet

from vertebra_kp.cli.commands import COMMANDS
from vertebra_kp.cli.main import main
from vertebra_kp.experiments import launch
from vertebra_kp.models import library

PIPE_BYTES, SET_PIPE_SIZE = 2**20, 1031  # F_SETPIPE_SZ of Linux
ORDER_BYTES = 2**16
STARTS_OTHERS = ("ablate", "cross-validate")
MARK = "\nwrites: "
CAPABILITY_VERSION, OVERRIDES = 0x20080522, 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; capabilities(7)
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


class Counter:
    """Counts what a process writes below a folder, and ends it at one of them."""

    def __init__(self) -> None:
        self.root, self.at, self.pid, self.count = "", None, 0, 0
        sys.addaudithook(self._hook)

    def begin(self, root: str, at: int | None) -> None:
        self.root, self.at, self.pid, self.count = f"{root}/", at, os.getpid(), 0

    def _hook(self, event: str, arguments: tuple) -> None:
        if os.getpid() != self.pid or not (event in WRITES or event == "open"):
            return
        path, mode, flags = arguments if event == "open" else (arguments[0], "w", 0)
        if isinstance(path, int) or not (set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)):
            return
        if os.path.abspath(os.fsdecode(path)).startswith(self.root):
            self.count += 1
            if self.count == self.at:
                os.killpg(0, signal.SIGKILL)


class Forker:
    """A process without threads, which forks commands for one that has some by then: torch does not outlive a fork
    of its threads."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self.ours.close()
            _fork_as_asked(theirs)
        theirs.close()

    def ask(self, order: dict, *files: int) -> int | None:
        socket.send_fds(self.ours, [json.dumps(order).encode()], files)
        return json.loads(self.ours.recv(ORDER_BYTES))


def _fork_as_asked(theirs: socket.socket) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        message, files, *_ = socket.recv_fds(theirs, ORDER_BYTES, 1)
        if not message:  # who asked has ended
            os._exit(0)
        order = json.loads(message)
        if "start" in order:
            answer = os.fork()
            if answer == 0:
                theirs.close()
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                _run(order["start"], files[0])
            os.close(files[0])
        else:
            found, status = os.waitpid(order["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        theirs.send(json.dumps(answer).encode())


class Forked:
    """In place of ``subprocess.Popen``: a command of this package in a fork, by ``forker``."""

    forker: Forker

    def __init__(self, command: list[str], *, stdout, **_: object) -> None:
        self.args, self.returncode = command, None
        self.pid = self.forker.ask({"start": command[len(launch.PROGRAM) :]}, stdout.fileno())

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 3600)
        while self.returncode is None:
            self.returncode = self.forker.ask({"wait": self.pid})
            if self.returncode is None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def _run(words: list[str], output: int, counter: Counter | None = None) -> None:
    """The command, and the end of the process as the interpreter ends it."""
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        code = main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        if counter is not None:
            counter.pid = 0
            print(f"{MARK}{counter.count}", flush=True)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # a log on a full disk: without an end here, two processes would go on
                stream.flush()
        os._exit(code or 0)


def obey_modes() -> None:
    """Root without the capability to read and write whatever the mode of a file says."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    failed = libc.capget(header, sets)
    sets[0], sets[1] = sets[0] & ~OVERRIDES, sets[1] & ~OVERRIDES  # effective, permitted
    if failed or libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def serve() -> None:
    library.efficientnet_v2_s = thin_efficientnet
    launch.subprocess = type("Forking", (), {**vars(subprocess), "Popen": Forked})
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for command in COMMANDS.values():
        import_module(f"vertebra_kp.cli.{command.module}")
    counter, outputs = Counter(), {}
    answer = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            read, write = os.pipe()
            fcntl.fcntl(write, SET_PIPE_SIZE, PIPE_BYTES)
            pid = os.fork()
            if pid == 0:
                os.setsid()
                if order.get("file_size") is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"],) * 2)
                if order.get("as_owner") and os.geteuid() == 0:
                    obey_modes()
                if order["start"][0] in STARTS_OTHERS:
                    Forked.forker = Forker()
                counter.begin(order["root"], order.get("at"))
                _run(order["start"], write, counter)
            os.close(write)
            outputs[pid] = read
            print(json.dumps({"pid": pid}), file=answer, flush=True)
        else:
            pid = order["wait"]
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            output, _, writes = _drained(outputs.pop(pid)).rpartition(MARK)
            if not writes.strip().isdigit():  # it was killed
                output, writes = output + writes, "0"
            print(json.dumps({"code": code, "output": output, "writes": int(writes)}), file=answer, flush=True)


def _drained(pipe: int) -> str:
    os.set_blocking(pipe, False)
    parts = []
    try:
        while part := os.read(pipe, 65536):
            parts.append(part)
    except BlockingIOError:  # a process that it started still holds the other end
        pass
    os.close(pipe)
    return b"".join(parts).decode("utf-8", "replace")


if __name__ == "__main__":
    os.environ.setdefault("MPLCONFIGDIR", str(Path(sys.argv[1]) / "matplotlib"))
    serve()
