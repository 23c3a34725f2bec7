"""Files of networks by name and path: what comes with the package, and what a file is by its content.

The package brings some weights along, each in a folder of its name, with its checksum, its calibration and a model
card.
"""

import logging
from functools import cache
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import ZIP, parse_json

log = logging.getLogger(__name__)

COMMITTED = Path(__file__).parents[1] / "models" / "pretrained"
FILE = "weights.safetensors"
SUFFIX = ".safetensors"
ABOUT = "network.json"  # in the folder of an exported network
MOST_HEADER_BYTES = 2**24
RENAMED = {"aasce-ap": "ap-spine"}  # published names of earlier versions


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


def find_network(name_or_path: str | Path) -> Path:
    """The file of weights that comes with the package under this name, or any file by its path.

    Raises CheckpointError, which lists the names, where there is neither a name nor a file.
    """
    name, own = str(name_or_path), Path(name_or_path)
    if name in RENAMED and not own.is_file():
        _say_renamed(name)
        name = RENAMED[name]
    committed = COMMITTED / name / FILE
    for path in (committed, own):
        if path.is_file():
            return path
    raise CheckpointError(
        f"{name_or_path}: no such checkpoint, and no weights of that name come along ({', '.join(published())})"
    )


@cache
def _say_renamed(name: str) -> None:
    """Once in a process."""
    log.warning("%s became %s, which reads any framing", name, RENAMED[name])


def is_weights(path: Path) -> bool:
    """Whether a file is one of weights, by its content; what is neither weights nor a checkpoint, by its name."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(9)
    if start.startswith(ZIP):  # a checkpoint is a zip archive
        return False
    return start[8:] == b"{" or path.suffix == SUFFIX  # 8 bytes of length, then a header of JSON


def names_sources(path: Path) -> bool:
    """Whether a file of weights is a spine network's: by its header, without the weights and without torch."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_HEADER_BYTES:
                return False
            header = parse_json(file.read(length))
        return "sources" in parse_json(header["__metadata__"]["looks"])[0]["config"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False  # whoever loads it says what is wrong


def is_exported(path: Path) -> bool:
    """Whether a path is the folder of an exported network."""
    return (path / ABOUT).is_file()


def published() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.parent.name for path in COMMITTED.glob(f"*/{FILE}"))


def name_of(path: Path) -> str:
    """The name of weights that come with the package, the path of any other."""
    return path.parent.name if path.parent.parent == COMMITTED else str(path)
