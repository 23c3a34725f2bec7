"""Every argument of every command: ``arguments.toml``, as argparse takes it. No import here takes long."""

import argparse
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vertebra_kp.core.errors import UserError

ARGUMENTS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)
ACTIONS = {"switch": "store_true", "switch_off": argparse.BooleanOptionalAction}


class UsageError(UserError):
    """Arguments that do not go together; the command ends as argparse ends it."""


def _within(of: type[int] | type[float], wanted: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """A number within bounds, as a type for argparse."""

    def number(text: str) -> float:
        try:
            value = of(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    return number


def _name(text: str) -> str:
    """Not empty, as of a shell variable that is not set: it would stand for the folder at hand."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or folder, . for this one")
    return text


TYPES: dict[str, Callable[[str], Any]] = {
    "path": lambda text: Path(_name(text)),
    "name": _name,
    "count": _within(int, "a whole number of 1 or more", lambda value: value >= 1),
    "whole": _within(int, "a whole number of 0 or more", lambda value: value >= 0),
    "proper_share": _within(float, "above 0 and below 1", lambda value: 0 < value < 1),
    "share": _within(float, "0 or more and below 1", lambda value: 0 <= value < 1),
    "size_mm": _within(float, "the size of a pixel in mm, above 0", lambda value: 0 < value < float("inf")),
    "limit": _within(float, "a number of 0 or more", lambda value: 0 <= value < float("inf")),
}


def add(to: argparse._ActionsContainer, name: str, *, required: bool = False) -> None:
    """Add the argument of this name to a parser, or to a group of one."""
    options = dict(ARGUMENTS[name])
    aliases = options.pop("aliases", ())
    positional = options.pop("positional", False)
    for key, meaning in (("type", TYPES), ("action", ACTIONS)):
        if key in options:
            options[key] = meaning.get(options[key], options[key])
    if isinstance(options.get("metavar"), list):
        options["metavar"] = tuple(options["metavar"])
    if positional:
        to.add_argument(name, **options)
        return
    if required:
        options["required"] = True
    action = to.add_argument(f"--{name}", *(f"--{alias}" for alias in aliases), **options)
    # The parser knows the older names by now; help and completion need not.
    action.option_strings = [one for one in action.option_strings if one.removeprefix("--") not in aliases]
