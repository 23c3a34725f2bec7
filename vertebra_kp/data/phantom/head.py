"""Bones of lateral whole spines above and before the spine: atlas, dens, skull, jaw, and the arms held up."""

import numpy as np

from vertebra_kp.data.phantom.anatomy import OUTLINES
from vertebra_kp.data.phantom.canvas import Canvas, ellipse, rounded
from vertebra_kp.data.phantom.spine import Spine

SKULL_MM, SKULL_RADII_MM = np.array([-15.0, -108.0]), (92.0, 74.0)  # centre, from that of C2
VAULT_MM = 6.0  # thickness
PETROUS = ellipse(np.array([-8.0, -56.0]), (17.0, 11.0))


def add_head_and_arms(
    bone: np.ndarray, canvas: Canvas, spine: Spine, density: float, rng: np.random.Generator
) -> None:
    """Adds attenuation in excess of soft tissue to ``bone`` ``[H, W]`` in place; the head stays level."""
    c2 = spine.levels.index("C2")
    upper = ("dens", "atlas_anterior_arch", "atlas_posterior_arch")
    upper_neck = [spine.on_body(c2, rounded(OUTLINES[name])) for name in upper]
    layer = canvas.shapes(upper_neck, value=120, outline=200)
    bone += canvas.blurred(layer, 0.5) * np.float32(0.5 * density / 255)

    centre = spine.centre_mm[c2]
    layer = canvas.shapes([centre + ellipse(SKULL_MM, SKULL_RADII_MM)], value=60, outline=230, line_mm=VAULT_MM)
    jaws = [centre + rounded(OUTLINES[name]) for name in ("mandible", "maxilla")]
    layer = canvas.shapes(jaws, value=120, outline=170, line_mm=2.0, onto=layer)
    base = [centre + rounded(outline) for outline in (OUTLINES["skull_base"], PETROUS)]
    layer = canvas.shapes(base, value=235, onto=layer)
    bone += canvas.blurred(layer, 1.0) * np.float32(0.9 * density / 255)

    shoulder = spine.centre_mm[spine.levels.index("T2")]
    arms = [shoulder + rounded(OUTLINES["humerus"]) + rng.uniform((-25, -8), (15, 18)) for _ in range(2)]
    layer = canvas.shapes(arms, value=110, outline=200, line_mm=2.5)
    bone += canvas.blurred(layer, 0.8) * np.float32(0.2 * density / 255)
