"""Where a network runs: the device, its name, its memory."""

import platform
import re
import sys
from pathlib import Path
from typing import TypedDict

import torch

from vertebra_kp.core.errors import UserError

CPU_INFO = Path("/proc/cpuinfo")


def choose_device(device: str | None) -> str:
    """``cpu`` or ``cuda`` as asked; None takes a GPU where there is one. Raises UserError where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: torch sees no GPU here; leave it open to use the CPU")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


class Hardware(TypedDict):
    """What a run ran on, as its results name it."""

    device: str
    name: str
    threads: int
    torch: str
    python: str


def hardware(device: torch.device | str) -> Hardware:
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    threads, python = torch.get_num_threads(), platform.python_version()
    return {"device": device.type, "name": name, "threads": threads, "torch": torch.__version__, "python": python}


def _cpu_name() -> str:
    """The model where the system tells it (Linux), else the architecture."""
    text = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


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
