"""Names and order of vertebrae and corners: levels, views, slips, keypoint schemas, corner states.

Corners are named by the side of the *image* (TL = top left), as every public data set stores them.
On a lateral film the anterior side is a property of the film, not of the corner name.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

import numpy as np

View = Literal["AP", "LA"]
Side = Literal["left", "right"]  # of the image
VIEWS: tuple[View, ...] = ("AP", "LA")
# How a vertebra stands on the one below: BUU-LSPINE's labels 0 to 4. Left and right are those of the image.
SLIP_CLASSES = ("normal", "left", "right", "antero", "retro")
SLIPS_SEEN: dict[View, tuple[int, ...]] = {"AP": (0, 1, 2), "LA": (0, 3, 4)}
FLIPPED_SLIP: tuple[int, ...] = (0, 2, 1, 3, 4)  # left <-> right
UNKNOWN = -1  # view or slip that nobody told; masked from loss and metrics

LEVELS: tuple[str, ...] = (
    *(f"C{i}" for i in range(1, 8)),
    *(f"T{i}" for i in range(1, 13)),
    *(f"L{i}" for i in range(1, 6)),
    "S1",
)
CORNERS: tuple[str, ...] = ("TL", "TR", "BL", "BR")
OUTLINE = [0, 1, 3, 2]  # TL, TR, BR, BL: the corners on their way around the vertebra
FLIPPED_CORNER: tuple[int, ...] = (1, 0, 3, 2)  # TL <-> TR, BL <-> BR


class State(IntEnum):
    """What is known of one corner; a fixed array of these travels with every array of points."""

    UNLABELLED = 0  # nobody said; masked from every loss and metric
    LABELLED = 1  # inside the film, with a position
    OUTSIDE = 2  # exists, but beyond the film's edge; masked from the heatmap loss
    NONEXISTENT = 3  # no such corner on this patient (missing vertebra, S1's inferior endplate)


@dataclass(frozen=True)
class Schema:
    """Which corners a network predicts, and in which order its channels come.

    ``levels`` run from head to foot. ``superior_only`` names the levels of which only TL and TR exist,
    ``inferior_only`` those of which only BL and BR do.
    Channel k is the k-th existing (level, corner), level by level in the order TL, TR, BL, BR:
    never "the i-th visible vertebra".
    """

    name: str
    view: View
    levels: tuple[str, ...]
    superior_only: frozenset[str] = frozenset()
    inferior_only: frozenset[str] = frozenset()
    flip_valid: bool = False

    @cached_property
    def exists(self) -> np.ndarray:
        """``[levels, 4]`` bool: the corners that this schema has."""
        exists = np.ones((len(self.levels), len(CORNERS)), dtype=bool)
        exists[[level in self.superior_only for level in self.levels], 2:] = False
        exists[[level in self.inferior_only for level in self.levels], :2] = False
        return exists

    @cached_property
    def channels(self) -> tuple[tuple[int, int], ...]:
        """(level index, corner index) of every heatmap channel."""
        return tuple((int(i), int(j)) for i, j in np.argwhere(self.exists))

    @cached_property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(f"{self.levels[i]}.{CORNERS[j]}" for i, j in self.channels)

    @property
    def num_channels(self) -> int:
        return len(self.channels)

    @property
    def num_levels(self) -> int:
        return len(self.levels)

    @property
    def flip_permutation(self) -> tuple[int, ...]:
        """Channel that takes the place of channel k when the film is mirrored left to right."""
        index = {channel: k for k, channel in enumerate(self.channels)}
        return tuple(index[(i, FLIPPED_CORNER[j])] for i, j in self.channels)

    def gather(self, fixed: np.ndarray) -> np.ndarray:
        """Fixed array ``[levels, 4, *]`` of points or states, as channels ``[K, *]``."""
        return fixed[self.exists]

    def scatter(self, channels: np.ndarray, fill: float = np.nan) -> np.ndarray:
        """Channels ``[K, *]`` as the fixed array ``[levels, 4, *]``; corners outside the schema hold ``fill``."""
        fixed = np.full((self.num_levels, len(CORNERS), *channels.shape[1:]), fill, channels.dtype)
        fixed[self.exists] = channels
        return fixed


def _between(first: str, last: str) -> tuple[str, ...]:
    return LEVELS[LEVELS.index(first) : LEVELS.index(last) + 1]


SCHEMAS: dict[str, Schema] = {
    schema.name: schema
    for schema in (
        Schema("ap_lumbar", "AP", _between("L1", "L5"), flip_valid=True),
        Schema("la_lumbar", "LA", _between("L1", "S1"), superior_only=frozenset({"S1"})),
        Schema("ap_whole_spine", "AP", _between("T1", "L5"), flip_valid=True),
        # C1 has no body, that of C2 runs up into the dens: the corners that the atlas CSXA labels (Ran et al.,
        # Scientific Data 11, 2024)
        Schema("la_cervical", "LA", _between("C2", "C7"), inferior_only=frozenset({"C2"})),
        Schema(
            "la_whole_spine",
            "LA",
            _between("C2", "S1"),
            superior_only=frozenset({"S1"}),
            inferior_only=frozenset({"C2"}),
        ),
    )
}


# What the crop refinement sees: a single vertebra, whichever it is.
ONE_VERTEBRA: dict[View, Schema] = {
    "AP": Schema("ap_vertebra", "AP", ("vertebra",), flip_valid=True),
    "LA": Schema("la_vertebra", "LA", ("vertebra",)),
}

# The same levels from the other side.
OTHER_VIEW: dict[str, str] = {"ap_lumbar": "la_lumbar", "la_lumbar": "ap_lumbar"}


PRESENT_FROM = 0.5  # a vertebra of this probability or more is taken to be on the film


def presence_target(states: np.ndarray) -> np.ndarray:
    """Presence by corner states ``[levels, 4]``: 1 any labelled, 0 all outside or nonexistent, nan unknown."""
    labelled = (states == State.LABELLED).any(axis=-1)
    absent = ((states == State.OUTSIDE) | (states == State.NONEXISTENT)).all(axis=-1)
    return np.where(labelled, 1.0, np.where(absent, 0.0, np.nan)).astype(np.float32)
