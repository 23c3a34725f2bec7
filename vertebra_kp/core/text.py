"""File names as text that every terminal and every file can hold."""

import os
import re

_UNDECODED = re.compile("[\udc80-\udcff]")  # how Python keeps the bytes of a name that are not UTF-8 (PEP 383)


def printable(name: str | os.PathLike[str]) -> str:
    """The name with ``\\xe9`` in place of each byte that is not UTF-8; any other text stays as it is."""
    shown = _UNDECODED.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", os.fspath(name))
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")  # half a UTF-16 pair, from somebody's JSON
