# PYTHON_ARGCOMPLETE_OK
"""``python -m vertebra_kp COMMAND`` is ``vertebra-kp COMMAND``: both start here."""

import signal
import sys
from collections.abc import Sequence

# An import that Ctrl-C interrupts shows a traceback. Until a command runs, the process just ends, without a word.
_HEARD = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background jobs ignore it
if _HEARD:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from vertebra_kp.cli.main import main as _main  # noqa: E402


def main(words: Sequence[str] | None = None) -> int:
    """Run a command as from a shell; returns its exit code (``core/exit_codes.py``)."""
    if _HEARD:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return _main(words)


if __name__ == "__main__":
    sys.exit(main())
