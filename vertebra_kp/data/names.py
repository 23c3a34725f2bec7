"""How annotation files spell a corner: ``L1.TL``. Other spellings are read, unknown ones are errors."""

import re

from vertebra_kp.core.anatomy import CORNERS, LEVELS, State

STATES = {state.name.lower(): state for state in State}

_SPELLING = re.compile(r"^\s*([A-Za-z]\d{1,2})[\s._:/-]*([TBtb][LRlr])\s*$")


_VERTEBRAL = re.compile(r"\s*[CTLS]\d|.*[\s._:/-][TB][LR]\s*$", re.IGNORECASE)


def corner_name(level: str, corner: str) -> str:
    return f"{level}.{corner}"


def parse_corner(text: str) -> tuple[str, str]:
    """``L1.TL``, ``L1_TL``, ``l1-tl`` or ``L1 TL`` as (level, corner); ValueError for anything else."""
    if match := _SPELLING.match(text):
        level, corner = match[1].upper(), match[2].upper()
        if level in LEVELS and corner in CORNERS:
            return level, corner
    raise ValueError(
        f"{text!r} names no corner; write level and corner as L1.TL (levels {LEVELS[0]}..{LEVELS[-1]}, corners "
        f"{', '.join(CORNERS)} by the side of the image)"
    )


def is_vertebral(text: object) -> bool:
    """Whether a name is meant for a level or corner, rightly spelled or not: it begins or ends as one does."""
    return isinstance(text, str) and _VERTEBRAL.match(text) is not None


def parse_level(text: str) -> str:
    """``L1`` or ``l1`` as level; ValueError for anything else."""
    level = text.strip().upper()
    if level not in LEVELS:
        raise ValueError(f"{text!r} names no level; write one of {LEVELS[0]}..{LEVELS[-1]}")
    return level
