"""What is on a film but not of the patient: screws and rods, and the lead letter of the side."""

import numpy as np

from vertebra_kp.data.phantom.canvas import Canvas
from vertebra_kp.data.phantom.presets import Preset
from vertebra_kp.data.phantom.spine import Spine

ROD_MM, SCREW_MM = 5.5, 6.0  # diameters
TITANIUM, LEAD = 1.6, 2.5  # attenuation of a rod and of a letter
# strokes of a letter, height and width 1, y down
LETTERS = {
    "L": [np.array([(0.0, 0.0), (0.0, 1.0), (0.6, 1.0)])],
    "R": [np.array([(0.0, 1.0), (0.0, 0.0), (0.5, 0.05), (0.6, 0.25), (0.5, 0.5), (0.0, 0.5), (0.6, 1.0)])],
}
LETTER_MM = (9.0, 16.0)


def add_metal(attenuation: np.ndarray, canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Adds pedicle screws joined by two rods over two to six neighbouring bodies, in place."""
    count = int(rng.integers(2, 7))
    last = int(rng.integers(count, len(spine.levels)))
    rows = range(last - count, last)
    screws, heads = [], []
    for side in (-1, 1):
        if spine.view == "LA":
            shaft, lean = [(-0.3, -0.3), (1.6, -0.35)], side * 0.08
        else:
            shaft, lean = [(side * 0.25, -0.1), (side * 0.62, -0.35)], 0.0
        placed = [spine.on_body(i, np.array(shaft) + np.array([0, lean])) for i in rows]
        screws += placed
        heads.append(np.array([screw[1] for screw in placed]))
    layer = canvas.lines(screws, value=200, line_mm=SCREW_MM)
    layer = canvas.lines(heads, value=255, line_mm=ROD_MM, onto=layer)
    attenuation += canvas.blurred(layer, 0.3) * np.float32(TITANIUM / 255)


def add_marker(attenuation: np.ndarray, canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Adds the letter of a side near a corner of the film, in place.

    On frontal films the patient's right is at the image's left.
    """
    letter = "LR"[rng.integers(2)]
    size, inset, low = rng.uniform(*LETTER_MM), rng.uniform(0.06, 0.14, 2), rng.random() < 0.5
    at_left = letter == "R" if spine.view == "AP" else rng.random() < 0.5
    first, last = canvas.corners_mm
    fraction = np.array([inset[0] if at_left else 1 - inset[0], 1 - inset[1] if low else inset[1]])
    upright = (canvas.direction, 1.0)
    strokes = [first + fraction * (last - first) + (s - (0.3, 0.5)) * size * upright for s in LETTERS[letter]]
    attenuation += canvas.lines(strokes, value=255, line_mm=size / 6) * np.float32(LEAD / 255)


def add_devices(
    attenuation: np.ndarray, canvas: Canvas, spine: Spine, preset: Preset, rng: np.random.Generator
) -> None:
    if rng.random() < preset.metal_probability:
        add_metal(attenuation, canvas, spine, rng)
    if rng.random() < preset.marker_probability:
        add_marker(attenuation, canvas, spine, rng)
