"""torchvision and timm imported in a third of the time: a command is to start in two seconds, not in four.

Two functions of torch's compiler make them load all of it; here it comes when one of the two is called. And
nothing of a hundred thousand new objects is garbage yet: looking for it costs as much again, now and when the
process ends.
(Measured in experiments/11_second_look.)
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

UTILS = "torch._dynamo.utils"  # torchvision.ops takes is_compile_supported from it


@contextmanager
def quick_imports() -> Iterator[None]:
    """What is imported inside."""
    if UTILS in sys.modules:  # the compiler is there; triton, which it brings, tells of leaks when it is frozen
        yield
        return
    with _uncollected(), _compiler_when_called():
        yield


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is looked for inside, nor ever after among what is there by then."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _compiler_when_called() -> Iterator[None]:
    """What asks for anything else of the compiler gets the real one: at worst nothing is saved."""
    stand_in, disable = ModuleType(UTILS), torch.compiler.disable

    def real() -> ModuleType:
        if sys.modules.get(UTILS) is stand_in:
            del sys.modules[UTILS]
        return import_module(UTILS)

    def anything_else(name: str) -> Any:
        if name.startswith("__"):  # inspect looks at every module's __file__
            raise AttributeError(name)
        return getattr(real(), name)

    def disable_when_called(function: Callable[..., Any] | None = None, *how: Any, **named_how: Any) -> Any:
        """A decorator of timm's."""
        if function is None or how or named_how:
            return disable(function, *how, **named_how)

        @wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            return disable(function)(*arguments, **named)

        return run

    stand_in.__dict__["is_compile_supported"] = lambda device: real().is_compile_supported(device)
    stand_in.__dict__["__getattr__"] = anything_else
    sys.modules[UTILS] = stand_in
    torch.compiler.disable = disable_when_called  # type: ignore[assignment]  # same calls, fewer names
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(UTILS) is stand_in:
            del sys.modules[UTILS]
