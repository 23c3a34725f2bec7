"""All bone but the vertebral bodies and the head: posterior elements, ribs, clavicles, sacrum, pelvis.

It hangs on the spine, so it moves with it and tells the levels' names: the twelfth ribs, the iliac crests
beside L4 and L5, the sacrum below. ``anatomy.yaml`` has the outlines and their units.
"""

import numpy as np

from vertebra_kp.data.phantom.anatomy import OUTLINES
from vertebra_kp.data.phantom.body import Body, add_body
from vertebra_kp.data.phantom.canvas import Canvas, bow, ellipse, rounded, turned
from vertebra_kp.data.phantom.head import add_head_and_arms
from vertebra_kp.data.phantom.spine import Spine

PEDICLE = ellipse(np.array([0.6, -0.3]), (0.15, 0.42))  # frontal, in half widths and heights of the body
# centre and radii in mm, centre as of the outline ``sacrum``
SACRAL_FORAMINA = [ellipse(np.array([17.0 - 1.5 * k, 28.0 + 20.0 * k]), (4.5, 3.5)) for k in range(4)]
# rib: half-width of the cage there as a fraction, fall from its head to the side wall in mm
RIB_REACH = ((1, 3, 8, 10, 11, 12), (0.42, 0.72, 1.0, 1.0, 0.85, 0.5))
RIB_FALL = ((1, 6, 12), (5.0, 45.0, 45.0))
RIB_BOW = bow(np.array([0.0, 0.0]), np.array([12.0, 45.0]), np.array([-65.0, 105.0]))  # lateral, from its head
LAST_JOINED_RIB = 10  # eleven and twelve end free
RIB_LENGTH = ((1, 6, 11, 12), (0.35, 1.0, 1.0, 0.55))  # lateral
LATERAL_PROCESS = {"C": "cervical_spine", "T": "thoracic_spine", "L": "lumbar_spine"}


def add_bones(bone: np.ndarray, canvas: Canvas, spine: Spine, density: float, rng: np.random.Generator) -> None:
    """Adds attenuation in excess of soft tissue to ``bone`` ``[H, W]`` in place."""
    if spine.view == "LA":
        _lateral_posterior_elements(bone, canvas, spine, density)
        _lateral_ribs(bone, canvas, spine, density, rng)
        _lateral_pelvis(bone, canvas, spine, density, rng)
        if "C2" in spine.levels:
            add_head_and_arms(bone, canvas, spine, density, rng)
    else:
        _frontal_posterior_elements(bone, canvas, spine, density)
        _frontal_ribs(bone, canvas, spine, density, rng)
        _frontal_pelvis(bone, canvas, spine, density, rng)


def _add(bone: np.ndarray, layer: np.ndarray, strength: float) -> None:
    bone += layer * np.float32(strength / 255)


def _sided(outline: np.ndarray) -> list[np.ndarray]:
    return [outline * (side, 1) for side in (-1, 1)]


def _frontal_posterior_elements(bone: np.ndarray, canvas: Canvas, spine: Spine, density: float) -> None:
    laminae, transverse, processes, pedicles = [], [], [], []
    for i in range(len(spine.levels)):
        laminae += [spine.on_body(i, rounded(side)) for side in _sided(OUTLINES["lamina"])]
        transverse += [spine.on_body(i, side) for side in _sided(OUTLINES["transverse_process"])]
        pedicles += [spine.on_body(i, side) for side in _sided(PEDICLE)]
        processes.append(spine.on_body(i, OUTLINES["spinous_process"]))
    layer = canvas.shapes(laminae, value=40, outline=65, line_mm=0.8)
    layer = canvas.shapes(transverse, value=60, outline=105, line_mm=0.8, onto=layer)
    layer = canvas.shapes(processes, value=110, outline=220, line_mm=1.0, onto=layer)
    layer = canvas.shapes(pedicles, value=70, outline=210, line_mm=1.2, onto=layer)
    _add(bone, canvas.blurred(layer, 0.4), 0.55 * density)


def _frontal_ribs(
    bone: np.ndarray, canvas: Canvas, spine: Spine, density: float, rng: np.random.Generator
) -> None:
    """Posterior ribs slope out and down to the side wall, anterior ones come back below them."""
    axis_x = spine.centre_mm[: spine.last_thoracic + 1, 0].mean()
    cage = rng.uniform(108, 135)
    back, front = [], []
    for i, level in enumerate(spine.levels):
        if not level.startswith("T"):
            continue
        number = int(level[1:])
        reach, fall = cage * np.interp(number, *RIB_REACH), np.interp(number, *RIB_FALL)
        for side in (-1, 1):
            head = spine.on_body(i, np.array([(side * 1.05, -0.7)]))[0]
            end = np.array([axis_x + side * reach, head[1] + fall])
            shoulder = np.array([(end[0] + head[0]) / 2 + side * 0.2 * reach, head[1] - (12 if number < 9 else 4)])
            back.append(bow(head, shoulder, end))
            if number <= LAST_JOINED_RIB:
                tip = np.array([axis_x + side * reach * 0.4, end[1] + 42])
                front.append(bow(end, end + np.array([side * 6, 32]), tip))
    for curves, strength in ((back, 0.3), (front, 0.17)):
        layer = canvas.lines(curves, value=230, line_mm=8.0)
        layer = canvas.lines(curves, value=130, line_mm=5.0, onto=layer)
        _add(bone, canvas.blurred(layer, 0.5), strength * density)
    if "T1" in spine.levels:
        clavicles = [spine.centre_mm[spine.levels.index("T1")] + side for side in _sided(OUTLINES["clavicle"])]
        layer = canvas.lines(clavicles, value=255, line_mm=11.0)
        layer = canvas.lines(clavicles, value=150, line_mm=7.0, onto=layer)
        _add(bone, canvas.blurred(layer, 1.0), 0.35 * density)


def _frontal_pelvis(
    bone: np.ndarray, canvas: Canvas, spine: Spine, density: float, rng: np.random.Generator
) -> None:
    """Sacrum and iliac wings, tilted half as much as the vertebra that stands on them."""
    base, tilt = spine.corners_mm()[-1, 2:].mean(axis=0), spine.tilt_deg[-1] / 2
    beside = np.array([spine.width_mm[-1, 1] / 2, 0.0])
    right = OUTLINES["sacrum"] + beside
    sacrum = np.concatenate((right, right[::-1] * (-1, 1)))
    layer = canvas.shapes([base + turned(rounded(sacrum), tilt)], value=115, outline=200, line_mm=1.5)
    foramina = [base + turned(side, tilt) for foramen in SACRAL_FORAMINA for side in _sided(foramen)]
    layer = canvas.shapes(foramina, value=60, outline=150, line_mm=0.8, onto=layer)
    _add(bone, canvas.blurred(layer, 0.6), 0.65 * density)
    wing = OUTLINES["iliac_wing"] * (1, rng.uniform(0.9, 1.2)) + beside
    wings = [base + turned(rounded(side), tilt) for side in _sided(wing)]
    layer = canvas.shapes(wings, value=90, outline=215, line_mm=2.0)
    _add(bone, canvas.blurred(layer, 0.8), 0.55 * density)


def _lateral_posterior_elements(bone: np.ndarray, canvas: Canvas, spine: Spine, density: float) -> None:
    pedicles, facets, processes = [], [], []
    for i, level in enumerate(spine.levels[:-1]):
        pedicles.append(spine.on_body(i, OUTLINES["lateral_pedicle"]))
        facets.append(spine.on_body(i, rounded(OUTLINES["facets"])))
        processes.append(spine.on_body(i, rounded(OUTLINES[LATERAL_PROCESS[level[0]]])))
    layer = canvas.shapes(processes, value=75, outline=120, line_mm=1.0)
    layer = canvas.shapes(facets, value=125, outline=190, line_mm=1.0, onto=layer)
    layer = canvas.shapes(pedicles, value=115, outline=195, line_mm=1.0, onto=layer)
    _add(bone, canvas.blurred(layer, 0.5), 0.6 * density)


def _lateral_ribs(
    bone: np.ndarray, canvas: Canvas, spine: Spine, density: float, rng: np.random.Generator
) -> None:
    """Both sides' ribs, the far one a little apart; the first ones and the twelfth are short."""
    ribs = []
    for i, level in enumerate(spine.levels):
        if not level.startswith("T"):
            continue
        head = spine.on_body(i, np.array([(1.2, -0.6)]))[0]
        length = np.interp(int(level[1:]), *RIB_LENGTH)
        for apart in (0.0, rng.uniform(4, 12)):
            curve = RIB_BOW * length + np.array([apart, apart / 2])
            ribs.append(head + curve)
    layer = canvas.lines(ribs, value=220, line_mm=8.0)
    layer = canvas.lines(ribs, value=130, line_mm=5.0, onto=layer)
    _add(bone, canvas.blurred(layer, 0.5), 0.25 * density)


def _lateral_pelvis(
    bone: np.ndarray, canvas: Canvas, spine: Spine, density: float, rng: np.random.Generator
) -> None:
    """S2 to S4 bending forwards below S1, the sacral crest, and two iliac wings nearly superposed."""
    s1 = len(spine.levels) - 1
    centre, tilt = spine.centre_mm[s1], spine.tilt_deg[s1]
    for k in range(1, 4):
        tilt += 10.0  # the sacrum is hollow towards the front
        centre = centre + turned(np.array([0, 0.93 * 0.88 ** (k - 0.5) * spine.height_mm[s1].mean()]), tilt)
        width_mm, height_mm = spine.width_mm[s1] * 0.8**k, spine.height_mm[s1] * 0.8**k
        body = Body(width_mm, height_mm, np.array([0.5, 0.5]), waist_mm=0.5, rounding_mm=1.5)
        add_body(bone, canvas, body, centre_mm=centre, tilt_deg=tilt, density=0.75 * density)
    crest = spine.on_body(s1, rounded(OUTLINES["sacral_crest"]))
    _add(bone, canvas.blurred(canvas.shapes([crest], value=100, outline=150), 0.8), 0.5 * density)
    layer = np.zeros(canvas.size, np.uint8)
    for _ in range(2):
        wing = OUTLINES["lateral_wing"] * (1, rng.uniform(0.85, 1.25)) + rng.uniform((-6, -4), (6, 4))
        layer = canvas.shapes(
            [spine.centre_mm[s1] + rounded(wing)], value=90, outline=190, line_mm=2.0, onto=layer
        )
    _add(bone, canvas.blurred(layer, 0.8), 0.3 * density)
