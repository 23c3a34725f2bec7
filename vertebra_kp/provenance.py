"""Where, with which code and with how much memory something was run, for its report."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).parent
CPU_INFO = Path("/proc/cpuinfo")


def hardware(device: torch.device) -> dict[str, Any]:
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    """The model where the system tells it (Linux), else the architecture."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def code_version(package: Path = PACKAGE) -> str:
    """Commit of the package's code, ``-dirty`` where files of it were changed since; its version outside git.

    Other files of the repository do not count: results are written while a study runs.
    """
    if _git(package, "ls-files", "__init__.py"):  # installed, it may lie in a repository that is not its own
        commit = _git(package, "rev-parse", "--short=12", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return f"{commit}-dirty" if changed else commit
    try:
        return version(PACKAGE.name)
    except PackageNotFoundError:
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """What git says; empty without git, and outside a repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def peak_memory_mb(device: torch.device) -> int | None:
    """The most that was held at a time, in MiB: by torch on a GPU, else by this process (None on Windows)."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))  # macOS counts bytes, Linux KiB
