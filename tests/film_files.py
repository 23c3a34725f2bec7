"""Films on disk of awkward sizes, with labels: what caches and shards are tried on."""

from pathlib import Path

import cv2
import numpy as np

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.films import Film
from vertebra_kp.data.record import Record, label_arrays

SCHEMA = SCHEMAS["la_lumbar"]
INPUT_SIZE = (128, 64)
# Shrunk by much and by little, wide, kept as it is, and of 16 bits.
SIZES = {
    "deep.png": (640, 300),
    "odd.png": (163, 81),
    "small.png": (70, 31),
    "tall.png": (901, 333),
    "wide.png": (300, 777),
}
SIXTEEN_BITS = "deep.png"


def write_film(path: Path, size: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    cv2.imwrite(str(path), image.astype(np.uint16) * 131 if path.name == SIXTEEN_BITS else image)


def labelled_records(folder: Path) -> list[Record]:
    """A record of every film in ``SIZES``, by id; one corner of each is off the film, one not labelled."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for seed, (name, size) in enumerate(sorted(SIZES.items())):
        write_film(folder / name, size, seed)
        points, states = label_arrays(SCHEMA)
        places = np.random.default_rng(100 + seed).uniform(0, 1, points.shape) * size[::-1]
        places[1, 2] += size[::-1]
        states[SCHEMA.exists] = State.LABELLED
        states[3, 1] = State.UNLABELLED
        points[states == State.LABELLED] = places[states == State.LABELLED]
        spacing = None if seed else 0.143
        records.append(Record(name, folder / name, f"patient {seed}", points, states, spacing))
    return records


def assert_same_film(film: Film, other: Film) -> None:
    """Bit by bit, but for where it was read from."""
    for name in ("image", "points_xy", "states", "to_image"):
        np.testing.assert_array_equal(getattr(film, name), getattr(other, name), err_msg=f"{film.id} {name}")
        assert getattr(film, name).dtype == getattr(other, name).dtype
    for name in ("id", "group", "size", "spacing_mm"):
        assert getattr(film, name) == getattr(other, name)
