"""What commands have in common: an error that a user can mend is one line, not a traceback."""

import logging
import sys
from collections.abc import Callable

from vertebra_kp.errors import UserError


def exit_code(work: Callable[[], None]) -> int:
    """Do the work; 0, or 1 with the error on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        work()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
