"""Frontal posture of a spine: the curves of a scoliosis."""

from itertools import pairwise

import numpy as np

from vertebra_kp.data.phantom.bodies import Bodies, fracture
from vertebra_kp.data.phantom.presets import Preset

BODY_SHARE = 0.4  # of a scoliotic curve that lies in the bodies, the rest in the discs
MOST_TURN_DEG = 12.0  # of a scoliotic curve per level
PLUMB = 0.85  # share of the lean of a scoliosis that the patient balances


def frontal_tilts(preset: Preset, bodies: Bodies, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
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
    height, fractures = fracture(preset, bodies._replace(height=height), kinds, rng)
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
