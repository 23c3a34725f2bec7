"""Geometry of a spine in millimetres, drawn from a preset: rigid bodies stacked from the sacrum up.

Frame: x to the image's right, y down; on lateral views anterior is at the left (the film may be mirrored
later).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, Schema, View
from vertebra_kp.data.phantom.anatomy import SIZES_MM
from vertebra_kp.data.phantom.presets import MOST_JITTER_SD, Preset

DISC_SHARE = {"L5": 0.30, "L4": 0.24, "L3": 0.19, "L2": 0.15, "L1": 0.12}  # of the discs' lordosis
KYPHOSIS_STEP_DEG = -2.0  # of a thoracolumbar disc on lateral films
POSTERIOR_DISC = 0.6  # posterior over central disc height (lateral)
MIN_GAP_MM = 1.5  # between the endplates of neighbours, at the narrower side
BODY_SHARE = 0.4  # of a scoliotic curve that lies in the bodies, the rest in the discs
MOST_TURN_DEG = 12.0  # of a scoliotic curve per level
PLUMB = 0.85  # share of the lean of a scoliosis that the patient balances
FRACTURE_KYPHOSIS = 0.7  # of a fracture's wedge that the spine does not compensate


@dataclass(frozen=True)
class Spine:
    """Bodies from head to foot, ``n`` of them, with those beyond the schema that a film may show.

    A body is a quadrilateral in its own frame: with superior and inferior width ``ws, wi`` and left and
    right height ``hl, hr`` its corners are TL ``(-ws, -hl) / 2``, TR ``(ws, -hr) / 2``, BL
    ``(-wi, hl) / 2``, BR ``(wi, hr) / 2``, turned by ``tilt_deg`` (clockwise on the screen) about
    ``centre_mm``. The mid-line from mid(TL, BL) to mid(TR, BR) has exactly the slope ``tilt_deg``.
    Endplates and walls may be hollow and the edges rounded; the corner is where the curves of endplate and
    wall, unrounded, meet.

    ``width_mm`` ``[n, 2]`` superior, inferior; ``height_mm`` ``[n, 2]`` left, right; ``concavity_mm``
    ``[n, 2]`` depth of the superior and inferior endplate; ``slip_fraction`` ``[n]`` step on the next body
    below towards image left, by the length of that body's superior endplate (measured between the right,
    posterior corners on lateral views and between the endplates' middles on frontal ones). ``truth`` holds
    what else was drawn.
    """

    view: View
    levels: tuple[str, ...]
    centre_mm: np.ndarray
    tilt_deg: np.ndarray
    width_mm: np.ndarray
    height_mm: np.ndarray
    concavity_mm: np.ndarray
    slip_fraction: np.ndarray
    truth: dict

    def corners_mm(self) -> np.ndarray:
        """``[n, 4, 2]`` in the order TL, TR, BL, BR."""
        local = _local_corners(self.width_mm, self.height_mm)
        return _turn(local, self.tilt_deg[:, None]) + self.centre_mm[:, None]

    @property
    def last_thoracic(self) -> int:
        """Index of T12, or of T11 where T12 is missing."""
        return max(i for i, level in enumerate(self.levels) if level.startswith("T"))

    def on_body(self, i: int, points: np.ndarray) -> np.ndarray:
        """Points in units of half the width and half the height of body ``i``, about its centre, in mm."""
        half = np.array([self.width_mm[i].mean(), self.height_mm[i].mean()]) / 2
        return self.centre_mm[i] + _turn(points * half, self.tilt_deg[i])


def draw_spine(schema: Schema, preset: Preset, rng: np.random.Generator) -> Spine:
    """A spine with the schema's levels, less a missing one, and three more above them."""
    first = LEVELS.index(schema.levels[0])
    levels = [*LEVELS[first - 3 : first], *schema.levels]
    missing = []
    if rng.random() < preset.missing_probability:
        # L5 fused with the sacrum, or eleven pairs of ribs: the film can tell which level is missing
        candidates = [level for level in ("T12", "L5") if level in schema.levels]
        missing = [candidates[rng.integers(len(candidates))]]
        levels.remove(missing[0])

    sizes = np.array([SIZES_MM[level] for level in levels])
    sizes *= rng.uniform(*preset.body_scale)
    sizes *= 1 + preset.size_jitter * rng.standard_normal(sizes.shape).clip(-2, 2)
    lateral = schema.view == "LA"
    width = sizes[:, 2:4] if lateral else sizes[:, 0:2]
    height = sizes[:, 4:6] if lateral else sizes[:, 4:6].mean(axis=1, keepdims=True).repeat(2, axis=1)
    concavity = rng.uniform(*preset.concavity_mm, (len(levels), 2)) * (height.mean(axis=1) / 25)[:, None]
    labelled = [i for i, level in enumerate(levels) if level in schema.levels and level != "S1"]
    slip = _draw_slips(preset, labelled, len(levels), rng)
    pose = _lateral_tilts if lateral else _frontal_tilts
    tilt, height, truth = pose(preset, _Bodies(levels, labelled, width, height), rng)
    for fracture in truth["fractures"]:
        if fracture["kind"] == "biconcave":
            row = levels.index(fracture["level"])
            concavity[row] += fracture["loss"] / 2 * height.mean(axis=1)[row]

    gap = sizes[:, 6] * rng.uniform(0.75, 1.2, len(levels)) * (POSTERIOR_DISC if lateral else 1.0)
    centre = _stack(width, height, tilt, slip, gap, hinge=1.0 if lateral else 0.0)
    truth["missing"] = missing
    return Spine(schema.view, tuple(levels), centre, tilt, width, height, concavity, slip, truth)


def _draw_slips(preset: Preset, labelled: list[int], n: int, rng: np.random.Generator) -> np.ndarray:
    """Step of each vertebra on the one below: fraction of its superior endplate, towards image left."""
    slip = preset.alignment_jitter * rng.standard_normal(n).clip(-MOST_JITTER_SD, MOST_JITTER_SD)
    if rng.random() < preset.slip_probability:
        size, sign = rng.uniform(*preset.slip_fraction), rng.choice((-1, 1), p=(0.3, 0.7))
        slip[rng.choice(labelled[-3:])] = sign * size
    return slip


class _Bodies(NamedTuple):
    """Levels from head to foot, which of them are labelled, ``width`` and ``height`` [n, 2] in mm."""

    levels: list[str]
    labelled: list[int]
    width: np.ndarray
    height: np.ndarray


def _fracture(
    preset: Preset, bodies: _Bodies, kinds: tuple[str, ...], rng: np.random.Generator
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


def _lateral_tilts(
    preset: Preset, bodies: _Bodies, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Mid-line tilts from sacral slope and lordosis; discs take what the bodies leave."""
    levels, labelled, width, height = bodies
    slope = rng.uniform(*preset.sacral_slope_deg)
    lordosis = slope + rng.uniform(*preset.l1_slope_deg)
    healthy = height
    height, fractures = _fracture(preset, bodies, ("wedge", "crush", "biconcave"), rng)
    wedge = _body_wedges_deg(width, height)
    lumbar = [i for i in labelled if levels[i].startswith("L")]
    lordosis += FRACTURE_KYPHOSIS * (wedge - _body_wedges_deg(width, healthy))[lumbar].sum()

    share = np.array([DISC_SHARE.get(level, 0.0) for level in levels])
    share *= rng.uniform(0.7, 1.3, len(levels))
    disc = share / share.sum() * (lordosis - wedge[lumbar].sum())
    disc[share == 0] = KYPHOSIS_STEP_DEG

    superior_part, inferior_part = _endplate_offsets_deg(width, height)
    tilt = np.empty(len(levels))
    superior = -slope
    tilt[-1] = superior - superior_part[-1]
    for i in range(len(levels) - 2, -1, -1):
        inferior = superior + disc[i]
        tilt[i] = inferior - inferior_part[i]
        superior = tilt[i] + superior_part[i]
    truth = {"sacral_slope_deg": float(slope), "lordosis_deg": float(lordosis), "fractures": fractures}
    return tilt, height, truth


def _frontal_tilts(
    preset: Preset, bodies: _Bodies, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Mid-line tilts of a scoliosis: extreme at the end vertebrae of its curves, smooth between them."""
    levels, labelled, width, height = bodies
    most = 3 if len(labelled) > 8 else 1
    count = int(rng.integers(1, most + 1))
    ends = _draw_end_vertebrae(labelled, count, rng)
    angles = np.minimum(rng.uniform(*preset.cobb_deg, count), MOST_TURN_DEG * np.diff(ends))
    steps = rng.choice((-1.0, 1.0)) * angles * (-1.0) ** np.arange(count)
    extremes = np.concatenate(([0.0], np.cumsum(steps)))
    extremes -= (extremes.max() + extremes.min()) / 2

    at = np.arange(len(levels))
    tilt = np.empty(len(levels))
    for (a, b), (start, stop) in zip(pairwise(ends), pairwise(extremes), strict=True):
        part = (at >= a) & (at <= b)
        tilt[part] = start + (stop - start) * (1 - np.cos(np.pi * (at[part] - a) / (b - a))) / 2
    reach = 5.0  # levels over which a curve fades beyond its end vertebra
    above, below = at < ends[0], at > ends[-1]
    tilt[above] = extremes[0] * np.exp(-(((ends[0] - at[above]) / reach) ** 2))
    tilt[below] = extremes[-1] * np.exp(-(((at[below] - ends[-1]) / reach) ** 2))
    jitter = preset.tilt_jitter_deg * rng.standard_normal(len(levels)).clip(-2, 2)
    jitter[ends] = 0.0
    tilt += jitter + rng.uniform(*preset.obliquity_deg) - PLUMB * tilt.mean()

    turn = np.clip(-np.gradient(tilt), -20, 20)  # superior less inferior endplate, degrees per level
    side = np.tan(np.deg2rad(BODY_SHARE * turn)) * width.mean(axis=1) / 2
    side = np.clip(side, -0.15 * height[:, 0], 0.15 * height[:, 0])
    height = height + np.stack((side, -side), axis=1)
    kinds = ("wedge_left", "wedge_right", "crush", "biconcave")
    height, fractures = _fracture(preset, bodies._replace(height=height), kinds, rng)
    curves = [
        {"upper": levels[a], "lower": levels[b], "angle_deg": float(angle)}
        for (a, b), angle in zip(pairwise(ends), angles, strict=True)
    ]
    main_cobb = float(np.ptp(tilt[labelled]))
    return tilt, height, {"curves": curves, "main_cobb_deg": main_cobb, "fractures": fractures}


def _draw_end_vertebrae(labelled: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Indices of ``count + 1`` end vertebrae, spread over the labelled levels."""
    first, last = labelled[0], labelled[-1]
    slack = (last - first) / (count + 1) * 0.5
    even = np.linspace(first + slack / 2, last - slack / 2, count + 1)
    return [round(e) for e in even + rng.uniform(-slack / 2, slack / 2, count + 1)]


def _stack(
    width: np.ndarray, height: np.ndarray, tilt_deg: np.ndarray, slip: np.ndarray, gap_mm: np.ndarray, hinge: float
) -> np.ndarray:
    """Centres ``[n, 2]`` of bodies piled on the lowest; the middle of its superior endplate is the origin.

    Neighbours are placed by the points of their endplates at ``hinge`` (0 the middle, 1 the right end): the
    upper one lies ``gap_mm`` above the lower endplate, more where they would touch, and ``slip`` of that
    endplate's length to its left.
    """
    corners = _turn(_local_corners(width, height), tilt_deg[:, None])  # about each body's own centre
    superior_part, inferior_part = _endplate_offsets_deg(width, height)
    centre = np.zeros((len(width), 2))
    centre[-1] = -corners[-1, :2].mean(axis=0)
    for i in range(len(width) - 2, -1, -1):
        left, right = corners[i + 1, 0] + centre[i + 1], corners[i + 1, 1] + centre[i + 1]
        along = right - left
        normal = np.array([along[1], -along[0]]) / np.hypot(*along)
        opening_deg = tilt_deg[i] + inferior_part[i] - tilt_deg[i + 1] - superior_part[i + 1]
        reach = width[i, 1] * ((1 + hinge) / 2 if opening_deg < 0 else (1 - hinge) / 2)  # to where they near
        gap = max(gap_mm[i], MIN_GAP_MM + reach * np.tan(np.deg2rad(abs(opening_deg))))
        foot = (left + right) / 2 + along * (hinge / 2 - slip[i]) + gap * normal
        centre[i] = foot - (corners[i, 2] * (1 - hinge) + corners[i, 3] * (1 + hinge)) / 2
    return centre


def _local_corners(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """``[n, 4, 2]`` corners about each body's centre, before it is tilted."""
    x = np.stack((-width[:, 0], width[:, 0], -width[:, 1], width[:, 1]), axis=1) / 2
    y = np.stack((-height[:, 0], -height[:, 1], height[:, 0], height[:, 1]), axis=1) / 2
    return np.stack((x, y), axis=2)


def _endplate_offsets_deg(width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tilt of the superior and inferior endplates relative to the mid-line."""
    difference = (height[:, 0] - height[:, 1]) / 2
    superior = np.rad2deg(np.arctan(difference / width[:, 0]))
    return superior, -np.rad2deg(np.arctan(difference / width[:, 1]))


def _body_wedges_deg(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Superior less inferior endplate tilt; positive where the left wall is the taller."""
    superior, inferior = _endplate_offsets_deg(width, height)
    return superior - inferior


def _turn(points: np.ndarray, angle_deg: np.ndarray) -> np.ndarray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    x, y = points[..., 0], points[..., 1]
    return np.stack((c * x - s * y, s * x + c * y), axis=-1)
