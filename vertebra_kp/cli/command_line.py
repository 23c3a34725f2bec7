"""What commands share: an error that a user can mend is one line, and ``--set a.b=c`` changes a config."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from vertebra_kp.core.errors import UserError


def add_set_argument(parser: argparse.ArgumentParser, told: str = "override") -> None:
    """``--set``, as ``overrides``; ``told`` is its help."""
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="a.b=c", help=told
    )


def exit_code(work: Callable[[], None]) -> int:
    """Do the work; 0, or 1 with the error on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        work()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """End the process with this code at once: what is loaded would take a third of a second to take apart."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
