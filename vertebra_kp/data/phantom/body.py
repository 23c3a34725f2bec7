"""Projection of one vertebral body: thickness along the beam of spongy and of cortical bone."""

from typing import NamedTuple

import numpy as np

from vertebra_kp.data.phantom.canvas import Canvas

RIM_MM = 0.9  # depth over which the cortical shell, seen edge-on, falls to 1/e
SPONGY, CORTICAL = 0.42, 0.75  # attenuation in excess of the soft tissue that the body displaces


class Body(NamedTuple):
    """``width_mm`` (superior, inferior), ``height_mm`` (left, right), depths of the endplates ``concavity_mm``
    (superior, inferior) and of the walls ``waist_mm``, and the radius ``rounding_mm`` of the corners."""

    width_mm: np.ndarray
    height_mm: np.ndarray
    concavity_mm: np.ndarray
    waist_mm: float
    rounding_mm: float


def body_distance(x: np.ndarray, y: np.ndarray, body: Body) -> np.ndarray:
    """Distance (mm, positive inside) from the outline of a body, at points of its own frame.

    Endplates and walls are parabolas that pass through the corners. Rounding takes about 0.41 of its radius off a
    right-angled tip; the labelled corner stays where endplate and wall, unrounded, would meet.
    """
    width_mm, height_mm, concavity_mm, waist_mm, rounding_mm = body
    (ws, wi), (hl, hr) = width_mm / 2, height_mm / 2
    superior_slope, inferior_slope = (hl - hr) / (2 * ws), (hr - hl) / (2 * wi)
    top = -(hl + hr) / 2 + superior_slope * x + concavity_mm[0] * (1 - (x / ws) ** 2)
    bottom = (hl + hr) / 2 + inferior_slope * x - concavity_mm[1] * (1 - (x / wi) ** 2)
    lean = (ws - wi) / 2  # the walls run from ws at the top to wi at the bottom
    left = -(ws + wi) / 2 + lean * y / hl + waist_mm * (1 - (y / hl) ** 2)
    right = (ws + wi) / 2 - lean * y / hr - waist_mm * (1 - (y / hr) ** 2)
    across = np.minimum((y - top) * _cos(superior_slope), (bottom - y) * _cos(inferior_slope))
    along = np.minimum((x - left) * _cos(lean / hl), (right - x) * _cos(lean / hr))
    q, p = rounding_mm - across, rounding_mm - along
    outside = np.sqrt(np.maximum(q, 0) ** 2 + np.maximum(p, 0) ** 2) + np.minimum(np.maximum(q, p), 0)
    return rounding_mm - outside


def add_body(
    bone: np.ndarray, canvas: Canvas, body: Body, *, centre_mm: np.ndarray, tilt_deg: float, density: float
) -> None:
    """Adds the attenuation of one body to ``bone`` ``[H, W]`` in place; outline pixels count by area."""
    width = body.width_mm.max()
    window = canvas.body_window(centre_mm, tilt_deg, float(np.hypot(width, body.height_mm.max())) / 2 + 3)
    if window is None:
        return
    pixels, x, y = window
    distance = body_distance(x, y, body)
    coverage = np.clip(distance / canvas.spacing_mm + 0.5, 0, 1)
    rim = np.exp(-np.maximum(distance, 0) / RIM_MM)
    chord = 1 - 0.3 * (2 * x / width) ** 2  # the body is round: its middle is the thickest
    bone[pixels] += density * coverage * (SPONGY * chord + CORTICAL * rim)


def _cos(slope: float) -> float:
    return float(1 / np.hypot(1, slope))
