"""Sagittal posture of a spine: slopes, lordosis and kyphosis, shared out over bodies and discs.

Anterior is at the left, so that a turn which lifts the front, and an opening to the front, is positive.
"""

import numpy as np

from vertebra_kp.data.phantom.bodies import Bodies, body_wedges_deg, endplate_offsets_deg, fracture
from vertebra_kp.data.phantom.presets import Preset

DISC_SHARE = {"L5": 0.30, "L4": 0.24, "L3": 0.19, "L2": 0.15, "L1": 0.12}  # of the discs' lordosis
KYPHOSIS_STEP_DEG = -2.0  # of a thoracolumbar disc on lateral films
CERVICOTHORACIC_STEP_DEG = 3.0  # of the disc between C7 and T1
BODY_SHARE = 0.6  # of a thoracic kyphosis that lies in the bodies, the rest in the discs
KYPHOSIS_APEX, KYPHOSIS_REACH = 7, 7.2  # thoracic vertebra that turns most, and levels to where none does
PLUMB = 0.8  # share of the lean of the trunk that the pelvis balances
FRACTURE_KYPHOSIS = 0.7  # of a fracture's wedge that the spine does not compensate
FRACTURES = ("wedge", "crush", "biconcave")


def lumbar_tilts(preset: Preset, bodies: Bodies, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
    """Mid-line tilts from sacral slope and lordosis; discs take what the bodies leave."""
    levels, labelled, width, height = bodies
    slope = rng.uniform(*preset.sacral_slope_deg)
    lordosis = slope + rng.uniform(*preset.l1_slope_deg)
    healthy = height
    height, fractures = fracture(preset, bodies, FRACTURES, rng)
    wedge = body_wedges_deg(width, height)
    lumbar = [i for i in labelled if levels[i].startswith("L")]
    lordosis += FRACTURE_KYPHOSIS * (wedge - body_wedges_deg(width, healthy))[lumbar].sum()

    share = np.array([DISC_SHARE.get(level, 0.0) for level in levels])
    share *= rng.uniform(0.7, 1.3, len(levels))
    disc = share / share.sum() * (lordosis - wedge[lumbar].sum())
    disc[share == 0] = KYPHOSIS_STEP_DEG
    tilt = _tilts(slope, disc, width, height)
    truth = {"sacral_slope_deg": float(slope), "lordosis_deg": float(lordosis), "fractures": fractures}
    return tilt, height, truth


def whole_spine_tilts(
    preset: Preset, bodies: Bodies, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Mid-line tilts from the slopes of S1, L1, T1 and C2; bodies and discs between them share out the rest.

    A trunk that leans, as that above a fracture does, is balanced by the pelvis, and the neck makes up for what is
    left: C2 keeps its slope.
    """
    levels, _, width, _ = bodies
    ranges = preset.sacral_slope_deg, preset.l1_slope_deg, preset.t1_slope_deg, preset.c2_slope_deg
    slope, l1_slope, t1_slope, c2_slope = (float(rng.uniform(*each)) for each in ranges)
    cervical, thoracic, lumbar = ([i for i, level in enumerate(levels) if level[0] == region] for region in "CTL")
    kyphosis = t1_slope + l1_slope + KYPHOSIS_STEP_DEG
    healthy = _kyphotic_heights(bodies, thoracic, kyphosis)
    fragile = bodies._replace(labelled=[*thoracic, *lumbar], height=healthy)
    height, fractures = fracture(preset, fragile, FRACTURES, rng)
    wedge = body_wedges_deg(width, height)
    lost = FRACTURE_KYPHOSIS * (wedge - body_wedges_deg(width, healthy))
    lordosis = slope + l1_slope + lost[lumbar].sum()
    kyphosis -= lost[thoracic].sum()

    share = rng.uniform(0.7, 1.3, len(levels))
    share[lumbar] *= [DISC_SHARE[levels[i]] for i in lumbar]
    share[thoracic] *= _kyphosis_share(levels, thoracic)
    disc = np.zeros(len(levels))
    disc[cervical[-1]], disc[thoracic[-1]] = CERVICOTHORACIC_STEP_DEG, KYPHOSIS_STEP_DEG

    def open_discs(discs: list[int], between: list[int], opening_deg: float) -> None:
        disc[discs] = share[discs] / share[discs].sum() * (opening_deg - wedge[between].sum())

    open_discs(lumbar, lumbar, lordosis)
    open_discs(thoracic[:-1], thoracic, -kyphosis)
    slope += PLUMB * _tilts(slope, disc, width, height)[[*thoracic, *lumbar]].mean()
    t1_slope = kyphosis - KYPHOSIS_STEP_DEG - (lordosis - slope)
    cervical_lordosis = t1_slope - CERVICOTHORACIC_STEP_DEG - c2_slope
    open_discs(cervical[:-1], cervical[1:], cervical_lordosis)
    tilt = _tilts(slope, disc, width, height)

    superior_part, inferior_part = endplate_offsets_deg(width, height)
    t4, last = levels.index("T4"), thoracic[-1]
    lower_kyphosis = tilt[last] + inferior_part[last] - tilt[t4] - superior_part[t4]
    complete = levels[last] == "T12"
    truth = {
        "sacral_slope_deg": float(slope),
        "lordosis_deg": float(lordosis),
        "thoracic_kyphosis_t1_t12_deg": float(kyphosis) if complete else None,
        "thoracic_kyphosis_t4_t12_deg": float(lower_kyphosis) if complete else None,
        "t1_slope_deg": float(t1_slope),
        "cervical_lordosis_deg": float(cervical_lordosis),
        "fractures": fractures,
    }
    return tilt, height, truth


def _kyphosis_share(levels: list[str], thoracic: list[int]) -> np.ndarray:
    """What each thoracic level has of the kyphosis, largest at the apex; sums up to 1."""
    number = np.array([int(levels[i][1:]) for i in thoracic])
    share = 1 - np.abs(number - KYPHOSIS_APEX) / KYPHOSIS_REACH
    return share / share.sum()


def _kyphotic_heights(bodies: Bodies, thoracic: list[int], kyphosis_deg: float) -> np.ndarray:
    """Heights ``[n, 2]`` with thoracic bodies wedged until they have their share of the kyphosis."""
    natural = body_wedges_deg(bodies.width, bodies.height)[thoracic].sum()
    turn = -(BODY_SHARE * kyphosis_deg + natural) * _kyphosis_share(bodies.levels, thoracic)
    side = np.tan(np.deg2rad(turn)) * bodies.width[thoracic].mean(axis=1) / 2
    height = bodies.height.copy()
    height[thoracic] += np.stack((side, -side), axis=1)
    return height


def _tilts(sacral_slope_deg: float, disc_deg: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Mid-line tilts ``[n]`` from the sacrum up: a disc turns the endplate above it, a body the next."""
    superior_part, inferior_part = endplate_offsets_deg(width, height)
    tilt = np.empty(len(width))
    superior = -sacral_slope_deg
    tilt[-1] = superior - superior_part[-1]
    for i in range(len(width) - 2, -1, -1):
        inferior = superior + disc_deg[i]
        tilt[i] = inferior - inferior_part[i]
        superior = tilt[i] + superior_part[i]
    return tilt
