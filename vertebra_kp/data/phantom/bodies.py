"""Bodies before they are stacked: their corners, the turns of their endplates, their fractures."""

from typing import NamedTuple

import numpy as np

from vertebra_kp.data.phantom.presets import Preset


class Bodies(NamedTuple):
    """Levels from head to foot, which of them are labelled, ``width`` and ``height`` [n, 2] in mm."""

    levels: list[str]
    labelled: list[int]
    width: np.ndarray
    height: np.ndarray


def fracture(
    preset: Preset, bodies: Bodies, kinds: tuple[str, ...], rng: np.random.Generator
) -> tuple[np.ndarray, list[dict]]:
    """Heights with some walls shortened, and the list of what was done."""
    levels, labelled, _, height = bodies
    height, fractures = height.copy(), []
    if rng.random() < preset.fracture_probability:
        count = rng.integers(preset.fractures[0], preset.fractures[1] + 1)
        for i in sorted(rng.choice(labelled, count, replace=False)):
            kind, loss = kinds[rng.integers(len(kinds))], float(rng.uniform(*preset.height_loss))
            if kind in ("wedge", "wedge_left", "crush"):
                height[i, 0] *= 1 - loss
            if kind in ("wedge_right", "crush"):
                height[i, 1] *= 1 - loss
            fractures.append({"level": levels[i], "kind": kind, "loss": loss})
    return height, fractures


def local_corners(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """``[n, 4, 2]`` corners about each body's centre, before it is tilted."""
    x = np.stack((-width[:, 0], width[:, 0], -width[:, 1], width[:, 1]), axis=1) / 2
    y = np.stack((-height[:, 0], -height[:, 1], height[:, 0], height[:, 1]), axis=1) / 2
    return np.stack((x, y), axis=2)


def endplate_offsets_deg(width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tilt of the superior and inferior endplates relative to the mid-line."""
    difference = (height[:, 0] - height[:, 1]) / 2
    superior = np.rad2deg(np.arctan(difference / width[:, 0]))
    return superior, -np.rad2deg(np.arctan(difference / width[:, 1]))


def body_wedges_deg(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Superior less inferior endplate tilt; positive where the left wall is the taller."""
    superior, inferior = endplate_offsets_deg(width, height)
    return superior - inferior


def turn(points: np.ndarray, angle_deg: np.ndarray) -> np.ndarray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    x, y = points[..., 0], points[..., 1]
    return np.stack((c * x - s * y, s * x + c * y), axis=-1)
