"""Geometry of a spine in millimetres, drawn from a preset: rigid bodies stacked from the sacrum up.

Frame: x to the image's right, y down; on lateral views anterior is at the left (the film may be mirrored
later).
"""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, Schema, View
from vertebra_kp.data.phantom.anatomy import SIZES_MM
from vertebra_kp.data.phantom.bodies import Bodies, endplate_offsets_deg, local_corners, turn
from vertebra_kp.data.phantom.frontal import frontal_tilts
from vertebra_kp.data.phantom.presets import MOST_JITTER_SD, Preset
from vertebra_kp.data.phantom.sagittal import lumbar_tilts, whole_spine_tilts

POSTERIOR_DISC = 0.6  # posterior over central disc height (lateral)
MIN_GAP_MM = 1.5  # between the endplates of neighbours, at the narrower side


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
        local = local_corners(self.width_mm, self.height_mm)
        return turn(local, self.tilt_deg[:, None]) + self.centre_mm[:, None]

    @property
    def last_thoracic(self) -> int:
        """Index of T12, or of T11 where T12 is missing."""
        return max(i for i, level in enumerate(self.levels) if level.startswith("T"))

    def on_body(self, i: int, points: np.ndarray) -> np.ndarray:
        """Points in units of half the width and half the height of body ``i``, about its centre, in mm."""
        half = np.array([self.width_mm[i].mean(), self.height_mm[i].mean()]) / 2
        return self.centre_mm[i] + turn(points * half, self.tilt_deg[i])


def draw_spine(schema: Schema, preset: Preset, rng: np.random.Generator) -> Spine:
    """A spine with the schema's levels, less a missing one, and up to three more above them."""
    first = LEVELS.index(schema.levels[0])
    levels = [*(level for level in LEVELS[max(first - 3, 0) : first] if level in SIZES_MM), *schema.levels]
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
    pose = frontal_tilts
    if lateral:
        pose = whole_spine_tilts if "C2" in levels else lumbar_tilts
    tilt, height, truth = pose(preset, Bodies(levels, labelled, width, height), rng)
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


def _stack(
    width: np.ndarray, height: np.ndarray, tilt_deg: np.ndarray, slip: np.ndarray, gap_mm: np.ndarray, hinge: float
) -> np.ndarray:
    """Centres ``[n, 2]`` of bodies piled on the lowest; the middle of its superior endplate is the origin.

    Neighbours are placed by the points of their endplates at ``hinge`` (0 the middle, 1 the right end): the
    upper one lies ``gap_mm`` above the lower endplate, more where they would touch, and ``slip`` of that
    endplate's length to its left.
    """
    corners = turn(local_corners(width, height), tilt_deg[:, None])  # about each body's own centre
    superior_part, inferior_part = endplate_offsets_deg(width, height)
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
