"""What a source says when a data set is not as it should be: every problem at once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.text import printable

LONGEST_LINE = 2000  # characters
NAMED = 5  # films that a warning names
MOST_LINES = 50  # that an error lists; a table with one wrong column has a problem in every line


class SourceError(UserError):
    """A data set that cannot be read; the message names folder or file, problem and remedy."""


class Faults:
    """What is wrong with a file, place by place, while it is read on: ``found`` grows."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def at(self, place: str = "") -> Iterator[None]:
        """A ValueError or OSError inside ends the block and is a fault of ``place``, such as ``shapes[3]``."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.found.append(f"{place}: {error}" if place else str(error))

    def raise_all(self) -> None:
        """One ValueError for all that was found, none when nothing was."""
        if self.found:
            raise ValueError("; ".join(self.found))


def some(names: Sequence[str]) -> tuple[int, str]:
    """How many there are, and the first of them: for a warning."""
    return len(names), printable(", ".join(names[:NAMED])) + (" ..." if len(names) > NAMED else "")


def raise_if_any(problems: Iterable[str], where: Path, remedy: str) -> None:
    """One SourceError that counts a data set's problems and lists them, one a line; nothing when there is none."""
    problems = list(problems)
    if not problems:
        return
    head = f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; {remedy}"
    rest = len(problems) - MOST_LINES
    more = [f"... and {rest} more"] if rest > 0 else []
    raise SourceError("\n  ".join([head, *map(_shortened, problems[:MOST_LINES]), *more]))


def _shortened(line: str) -> str:
    """Without its middle, where it is too long: what stands in a damaged file may be endless."""
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"
