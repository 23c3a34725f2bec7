"""Soft tissue of the trunk: skin line, lungs, heart, diaphragm, bowel gas.

It has no sharp edges, so it is drawn coarsely. Frontal outlines are given for the image's right half.
"""

import numpy as np

from vertebra_kp.data.phantom.anatomy import OUTLINES
from vertebra_kp.data.phantom.canvas import Canvas, ellipse, rounded
from vertebra_kp.data.phantom.presets import Preset
from vertebra_kp.data.phantom.spine import Spine

TISSUE_PER_MM = 0.02  # attenuation of soft tissue at about 70 keV
COARSE = 4


def soft_tissue(canvas: Canvas, spine: Spine, preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """Attenuation ``[H, W]`` float32 of trunk, lungs and gas."""
    coarse = canvas.coarse(COARSE)
    trunk = _lateral_trunk if spine.view == "LA" else _frontal_trunk
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
