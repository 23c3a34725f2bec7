"""Soft tissue: trunk, lungs, heart, diaphragm, bowel gas; on lateral whole spines head, neck and windpipe too.

It has no sharp edges, so it is drawn coarsely. Frontal outlines are given for the image's right half.
"""

import numpy as np

from vertebra_kp.data.phantom.anatomy import OUTLINES
from vertebra_kp.data.phantom.canvas import Canvas, ellipse, rounded
from vertebra_kp.data.phantom.presets import Preset
from vertebra_kp.data.phantom.spine import Spine

# Lateral whole spines: skin behind and before the centres of these levels in mm, and thickness there relative to
# the trunk's: the neck is thin, the shoulders are thick
SKIN = {
    "C2": (52, 50, 0.5),
    "C5": (54, 52, 0.5),
    "C7": (66, 62, 0.75),
    "T2": (80, 95, 1.1),
    "T5": (78, 160, 1.0),
    "T9": (74, 185, 0.95),
    "L1": (84, 170, 1.0),
    "L4": (98, 165, 1.1),
    "S1": (112, 160, 1.25),
}
HEAD = ellipse(np.array([-15.0, -108.0]), (98.0, 80.0)), ellipse(np.array([-72.0, -38.0]), (42.0, 72.0))  # from C2
TISSUE_PER_MM = 0.02  # attenuation of soft tissue at about 70 keV
COARSE = 4


def soft_tissue(canvas: Canvas, spine: Spine, preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """Attenuation ``[H, W]`` float32 of trunk, lungs and gas."""
    coarse = canvas.coarse(COARSE)
    trunk = _frontal_trunk
    if spine.view == "LA":
        trunk = _lateral_body if "C2" in spine.levels else _lateral_trunk
    tissue = trunk(coarse, spine, rng) * (TISSUE_PER_MM * rng.uniform(*preset.tissue_mm))
    tissue -= _gas(coarse, spine, preset, rng)
    return canvas.finer(np.maximum(tissue, 0), COARSE)


def _coverage(canvas: Canvas, polygons: list[np.ndarray], blur_mm: float) -> np.ndarray:
    """Share of the polygons, corners rounded and edges blurred: 0 to 1, float32."""
    layer = canvas.shapes([rounded(polygon) for polygon in polygons])
    return canvas.blurred(layer, blur_mm).astype(np.float32) / 255


def _frontal_trunk(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> np.ndarray:
    """Relative thickness from the front; shoulders and lungs also where the spine stops short of them."""
    middle = spine.centre_mm[: spine.last_thoracic + 1, 0].mean()
    t12_y, base_y = spine.centre_mm[spine.last_thoracic, 1], spine.centre_mm[-1, 1]
    half = rng.uniform(125, 165)
    neck_y = t12_y - max(t12_y - spine.centre_mm[0, 1], 200.0)
    dome_y = t12_y - rng.uniform(30, 55)
    right = [
        (1.22 * half, base_y + 300),
        (1.2 * half, base_y + 110),
        (0.86 * half, base_y - 40),
        (1.04 * half, t12_y),
        (1.08 * half, neck_y + 110),
        (1.3 * half, neck_y + 85),
        (1.25 * half, neck_y + 45),
        (60, neck_y + 8),
        (46, neck_y - 300),
    ]
    outline = np.array([*right, *((-x, y) for x, y in reversed(right))])
    outline[:, 0] += np.interp(outline[:, 1], *spine.centre_mm.T[::-1])  # a curved spine bends the trunk
    thickness = _coverage(canvas, [outline], 6.0)

    higher = rng.uniform(-14, 14)  # the domes of the diaphragm differ in height
    lungs = []
    for side in (-1, 1):
        side_dome = dome_y + side * higher
        lung = [
            (20, neck_y + 65),
            (26, neck_y + 20),
            (60, neck_y + 16),
            (0.7 * half, neck_y + 70),
            (0.93 * half, dome_y - 80),
            (0.95 * half, dome_y + 50),
            (0.85 * half, dome_y + 30),
            (0.62 * half, side_dome),
            (0.4 * half, side_dome),
            (24, side_dome + 18),
        ]
        lungs.append(np.array(lung) * (side, 1) + np.array([middle, 0]))
    heart = ellipse(
        np.array([middle + rng.uniform(20, 34), dome_y - 45]), (rng.uniform(42, 56), rng.uniform(56, 74)), -25.0
    )
    mediastinum = ellipse(np.array([middle, (dome_y + neck_y) / 2]), (rng.uniform(26, 32), 0.6 * (t12_y - neck_y)))
    air = canvas.shapes([rounded(lung) for lung in lungs])
    air = canvas.shapes([heart, mediastinum], value=70, onto=air)
    share = canvas.blurred(air, 3.0).astype(np.float32) / 255
    return thickness * (1 - rng.uniform(0.5, 0.62) * share)


def _lateral_trunk(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> np.ndarray:
    """Relative thickness from the side: thickest at the pelvis, skin of the back, two domes of lung."""
    centre = spine.centre_mm
    back, front = rng.uniform(75, 110), rng.uniform(130, 200)
    beyond = np.array([0, 400])
    axis = np.concatenate((centre[:1] - beyond, centre, centre[-1:] + beyond))
    outline = np.concatenate((axis + np.array([back, 0]), axis[::-1] - np.array([front, 0])))
    thickness = _coverage(canvas, [outline], 14.0)
    hips = ellipse(centre[-1] + np.array([0, 60]), (170, 110))
    thickness *= 1 + rng.uniform(0.1, 0.3) * _coverage(canvas, [hips], 25.0)
    dome = centre[spine.last_thoracic] + np.array([0, rng.uniform(-25, 0)])
    share = rng.uniform(0.15, 0.25)
    for apart in (0.0, rng.uniform(8, 16)):
        leaf = dome + OUTLINES["lateral_lung"] - np.array([0, apart])
        thickness *= 1 - share * _coverage(canvas, [leaf], 2.5)
    return thickness


def _lateral_body(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> np.ndarray:
    """Relative thickness of head, neck and trunk from the side, less lungs and windpipe."""
    centre, levels = spine.centre_mm, spine.levels
    rows = [levels.index(level) for level in SKIN]
    back, front, depth = (
        np.interp(np.arange(len(levels)), rows, column) for column in zip(*SKIN.values(), strict=True)
    )
    back, front = back * rng.uniform(0.85, 1.2), front * rng.uniform(0.85, 1.15)
    sideways, below, above = np.array([1.0, 0.0]), np.array([0.0, 400.0]), np.array([0.0, -75.0])
    behind, before = centre + back[:, None] * sideways, centre - front[:, None] * sideways
    ends = behind[-1:] + below, before[-1:] + below, before[::-1], before[:1] + above, behind[:1] + above
    skin = np.concatenate((behind, *ends))
    thickness = _coverage(canvas, [skin], 7.0)
    y = canvas.origin_mm[1] + (np.arange(canvas.size[0]) + 0.5) * canvas.spacing_mm
    thickness *= np.interp(y, centre[:, 1], depth).astype(np.float32)[:, None]
    head = 0.65 * _coverage(canvas, [centre[0] + part for part in HEAD], 4.0)
    thickness = np.maximum(thickness, head)

    dome = centre[spine.last_thoracic] + np.array([0, rng.uniform(-25, 0)])
    chest = [i for i in range(spine.last_thoracic) if levels[i][0] == "T" and levels[i] != "T1"]
    apex = np.minimum(np.arange(len(chest)) / 4, 1.0) ** 0.5  # the lungs' tops are round
    behind = centre[chest] + (apex * (0.67 * back[chest] - 14))[:, None] * sideways
    before = centre[chest] - (front[chest] * np.linspace(0.4, 0.86, len(chest)))[:, None] * sideways
    share = rng.uniform(0.2, 0.3)
    for apart in (0.0, rng.uniform(8, 16)):
        base = dome + OUTLINES["lateral_lung"][1:6] * (0.8 * front[chest[-1]] / 140, 1) - np.array([0, apart])
        lung = np.concatenate((base, behind[::-1], before))
        thickness *= 1 - share * _coverage(canvas, [lung], 2.5)
    heart = centre[levels.index("T8")] - front[levels.index("T8")] * np.array([0.55, 0.0])
    thickness *= 1 + rng.uniform(0.15, 0.3) * _coverage(canvas, [ellipse(heart, (46, 58), -30.0)], 5.0)
    airway = [i for i in range(levels.index("T5")) if levels[i] != "C2"]
    tube = centre[airway] - np.interp(airway, (airway[0], airway[-1]), (22, 52))[:, None] * sideways
    air = canvas.blurred(canvas.lines([tube], value=255, line_mm=15.0), 2.0).astype(np.float32) / 255
    return thickness * (1 - 0.12 * air)


def _gas(canvas: Canvas, spine: Spine, preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """Attenuation that bowel gas takes away: lobed bubbles beside or in front of the lumbar spine."""
    low, high = preset.gas_bubbles
    middle = spine.centre_mm[spine.last_thoracic + 3]
    bubbles = []
    for _ in range(int(rng.integers(low, high + 1))):
        if spine.view == "LA":
            where = middle + rng.uniform((-130, -70), (-35, 110))
        else:
            where = middle + rng.uniform((25, -60), (120, 140)) * (rng.choice((-1, 1)), 1)
        radii, tilt = rng.uniform((6, 5), (18, 13)), rng.uniform(-60, 60)
        bubbles.append(ellipse(where, tuple(radii), tilt))
        bubbles.append(ellipse(where + rng.uniform(-1, 1, 2) * radii, tuple(0.7 * radii), tilt))
    return rng.uniform(0.25, 0.6) * _coverage(canvas, bubbles, 2.0)
