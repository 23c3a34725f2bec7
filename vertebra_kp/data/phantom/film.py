"""One phantom film: spine, frame, attenuation, exposure, labels."""

from dataclasses import dataclass, fields
from functools import cache

import cv2
import numpy as np

from vertebra_kp.core.anatomy import FLIPPED_CORNER, SLIPS_SEEN, Schema, Side, State
from vertebra_kp.data.phantom.body import Body, add_body
from vertebra_kp.data.phantom.canvas import Canvas
from vertebra_kp.data.phantom.devices import add_devices
from vertebra_kp.data.phantom.presets import PRESETS, SLIP_FROM, Preset
from vertebra_kp.data.phantom.radiograph import Exposure, display, expose
from vertebra_kp.data.phantom.skeleton import add_bones
from vertebra_kp.data.phantom.spine import Spine, draw_spine
from vertebra_kp.data.phantom.trunk import soft_tissue
from vertebra_kp.data.record import mask_slips, unknown_slips

# Height / width of the drawn field
FIELD_ASPECT = {"la_lumbar": 2.0, "ap_lumbar": 2.0, "ap_whole_spine": 2.5, "la_whole_spine": 2.5}
ANATOMIES = tuple(FIELD_ASPECT)  # names of the schemas that can be drawn
TILE_TEXELS, TEXEL_MM = 512, 0.6


@dataclass(frozen=True)
class PhantomFilm:
    """A film, its labels and the generator's own parameters.

    ``image`` ``[H, W]`` uint8, bone bright; ``points_xy_image`` ``[levels, 4, 2]`` float32, continuous
    coordinates, nan where the state is not LABELLED; ``states`` ``[levels, 4]`` int8; ``slips`` ``[levels]``
    int8 of ``SLIP_CLASSES``, UNKNOWN where the film does not show the step; ``spacing_mm`` of a pixel;
    ``anterior_side`` "left" or "right" on lateral films, else None; ``truth`` ready for JSON.
    """

    image: np.ndarray
    points_xy_image: np.ndarray
    states: np.ndarray
    slips: np.ndarray
    spacing_mm: float
    anterior_side: Side | None
    truth: dict


@dataclass(frozen=True)
class Window:
    """The part of the film between the shutters, in continuous image coordinates."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def pixels(self) -> tuple[slice, slice]:
        return slice(round(self.top), round(self.bottom)), slice(round(self.left), round(self.right))

    def shows(self, points: np.ndarray) -> np.ndarray:
        """Which of the points ``[..., 2]`` lie inside; nan does not."""
        x, y = points[..., 0], points[..., 1]
        return (x >= self.left) & (x <= self.right) & (y >= self.top) & (y <= self.bottom)


def draw_film(schema: Schema, preset: str, seed: int, index: int, size: tuple[int, int]) -> PhantomFilm:
    """Film ``index`` of a seed, ``size`` (height, width) pixels: the same everywhere and in any order.

    Everything is drawn in millimetres before the size is looked at, so two sizes of one aspect show one
    patient at two resolutions. Raises ValueError for an unknown preset and for a schema not in ``ANATOMIES``.
    """
    if schema.name not in ANATOMIES:
        raise ValueError(f"phantoms are drawn of {', '.join(ANATOMIES)}, got {schema.name!r}")
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    ranges = PRESETS[preset]
    key = [int.from_bytes(name.encode(), "big") for name in (schema.name, preset)]
    spine_rng, frame_rng, patient_rng, exposure_rng = (
        np.random.default_rng(s) for s in np.random.SeedSequence([*key, seed, index]).spawn(4)
    )
    spine = draw_spine(schema, ranges, spine_rng)
    canvas, window = _frame(schema, ranges, spine, size, frame_rng)
    attenuation = _attenuation(canvas, spine, ranges, patient_rng)
    drawn = (exposure_rng.uniform(*getattr(ranges, field.name)) for field in fields(Exposure))
    exposure = Exposure(*drawn)
    log_image = expose(attenuation, canvas.spacing_mm, exposure, exposure_rng)
    image = display(log_image, canvas.spacing_mm, window.pixels, exposure)
    points, states = _labels(schema, spine, canvas, window)
    side: Side | None = None
    if schema.view == "LA":
        side = "right" if canvas.mirrored else "left"
    truth = {"schema": schema.name, "preset": preset, "seed": seed, "index": index, "anterior_side": side}
    truth |= {"spacing_mm": canvas.spacing_mm, **spine.truth, "levels": _level_truth(schema, spine, canvas)}
    slips = mask_slips(_slips(schema, spine), states)
    return PhantomFilm(image, points, states, slips, canvas.spacing_mm, side, truth)


def _labelled_corners(schema: Schema, spine: Spine) -> np.ndarray:
    """``[levels, 4, 2]`` mm in the schema's order, nan where the schema or the patient has no corner."""
    corners = np.full((schema.num_levels, 4, 2), np.nan)
    of_spine = spine.corners_mm()
    for i, level in enumerate(schema.levels):
        if level in spine.levels:
            corners[i] = of_spine[spine.levels.index(level)]
    corners[~schema.exists] = np.nan
    return corners


def _frame(
    schema: Schema, preset: Preset, spine: Spine, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Canvas, Window]:
    """Where the film lies over the patient, and the part of it that the shutters leave open."""
    corners = _labelled_corners(schema, spine)
    low, high = np.nanmin(corners, axis=(0, 1)), np.nanmax(corners, axis=(0, 1))
    margins = rng.uniform(*preset.margin_mm, 2)
    shift, cut_levels = rng.uniform(*preset.shift_mm), rng.uniform(*preset.cut_levels)
    cut = rng.choice(("top", "bottom")) if rng.random() < preset.cut_probability else None
    mirrored = schema.view == "LA" and rng.random() < preset.anterior_right_probability
    closed = rng.random() < preset.collimation_probability
    shutters_mm = rng.uniform(*preset.shutter_mm, 4) * closed  # left, top, right, bottom

    lost = cut_levels * (high[1] - low[1]) / schema.num_levels
    top = low[1] + lost if cut == "top" else low[1] - margins[0]
    bottom = high[1] - lost if cut == "bottom" else high[1] + margins[1]
    centre_x = (low[0] + high[0]) / 2 + shift
    field_width = high[0] - low[0] + 2 * (abs(shift) + preset.side_margin_mm)

    # any size shows the whole field; a film that is taller or wider shows more around it
    height, width = size
    aspect = FIELD_ASPECT[schema.name]
    field = max(bottom - top, field_width * aspect)
    spacing = float(max(field / height, field / aspect / width))
    spare = spacing * height - (bottom - top)
    origin_y = top - spare * {"top": 0.0, "bottom": 1.0, None: 0.5}[cut]
    origin_x = centre_x + (1 if mirrored else -1) * spacing * width / 2
    canvas = Canvas(size, spacing, (float(origin_x), float(origin_y)), bool(mirrored))
    left, above, right, below = shutters_mm / spacing
    return canvas, Window(left, above, width - right, height - below)


def _attenuation(canvas: Canvas, spine: Spine, preset: Preset, rng: np.random.Generator) -> np.ndarray:
    density = rng.uniform(*preset.bone_density)
    bone = np.zeros(canvas.size, np.float32)
    add_bones(bone, canvas, spine, density, rng)
    for i in range(len(spine.levels)):
        scale = spine.width_mm[i].mean() / 40
        body = Body(spine.width_mm[i], spine.height_mm[i], spine.concavity_mm[i], 1.5 * scale, 1.0 * scale)
        strength = density * np.clip(scale, 0.7, 1.2)
        add_body(bone, canvas, body, centre_mm=spine.centre_mm[i], tilt_deg=spine.tilt_deg[i], density=strength)
    offset = rng.uniform(0, TILE_TEXELS, 2)
    bone *= 1 + 0.12 * _texture(canvas, offset)
    tissue = soft_tissue(canvas, spine, preset, rng)
    attenuation = bone + tissue * (1 + 0.01 * _texture(canvas, offset[::-1]))
    add_devices(attenuation, canvas, spine, preset, rng)
    return attenuation


def _texture(canvas: Canvas, offset: np.ndarray) -> np.ndarray:
    """The tile laid over the film at its true scale, wrapped around."""
    step = canvas.spacing_mm / TEXEL_MM
    matrix = np.array([[step, 0, offset[0]], [0, step, offset[1]]])
    height, width = canvas.size
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(_tile(), matrix, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)


@cache
def _tile() -> np.ndarray:
    """Noise of unit SD with the grain of trabecular bone, ``[TILE_TEXELS, TILE_TEXELS]`` float32."""
    noise = np.random.default_rng(0).standard_normal((TILE_TEXELS, TILE_TEXELS), dtype=np.float32)
    tile = cv2.GaussianBlur(noise, (0, 0), 1.2) + 2 * cv2.GaussianBlur(noise, (0, 0), 4.0)
    return tile / tile.std()


def _labels(schema: Schema, spine: Spine, canvas: Canvas, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Points and states: corners beyond the film or behind the shutters are OUTSIDE."""
    points = canvas.to_image(_labelled_corners(schema, spine))
    if canvas.mirrored:
        points = points[:, FLIPPED_CORNER]
    states = np.full(points.shape[:2], State.NONEXISTENT, np.int8)
    states[~np.isnan(points[..., 0])] = State.OUTSIDE
    states[window.shows(points)] = State.LABELLED
    points[states != State.LABELLED] = np.nan
    return points.astype(np.float32), states


def _slips(schema: Schema, spine: Spine) -> np.ndarray:
    """Classes ``[levels]`` of the steps that were drawn, by the size and the sign of ``Spine.slip_fraction``.

    Anterior, or image left on frontal films, is positive, and a film that is mirrored shows anterior at the right:
    its classes stay. The lowest vertebra has no other below it.
    """
    slips = unknown_slips(schema)
    normal, positive, negative = SLIPS_SEEN[schema.view]
    for level, fraction in zip(spine.levels[:-1], spine.slip_fraction, strict=False):
        if level in schema.levels:
            slipped = positive if fraction > 0 else negative
            slips[schema.levels.index(level)] = slipped if abs(fraction) >= SLIP_FROM else normal
    return slips


def _level_truth(schema: Schema, spine: Spine, canvas: Canvas) -> dict[str, dict | None]:
    """What was drawn for each level of the schema, by image side; None for a missing one.

    ``slip_fraction`` of the vertebra on ``slip_on`` is positive towards anterior (lateral) or image left
    (frontal); ``tilt_deg`` is the slope of the body's mid-line, clockwise on the screen.
    """
    truth: dict[str, dict | None] = dict.fromkeys(schema.levels)
    for i, level in enumerate(spine.levels):
        if level not in schema.levels:
            continue
        left, right = spine.height_mm[i, ::-1] if canvas.mirrored else spine.height_mm[i]
        has_below = i + 1 < len(spine.levels)
        truth[level] = {
            "centre_xy_image": canvas.to_image(spine.centre_mm[i]).tolist(),
            "tilt_deg": float(spine.tilt_deg[i] * canvas.direction),
            "superior_width_mm": float(spine.width_mm[i, 0]),
            "inferior_width_mm": float(spine.width_mm[i, 1]),
            "left_height_mm": float(left),
            "right_height_mm": float(right),
            "superior_concavity_mm": float(spine.concavity_mm[i, 0]),
            "inferior_concavity_mm": float(spine.concavity_mm[i, 1]),
            "slip_fraction": float(spine.slip_fraction[i]) if has_below else None,
            "slip_on": spine.levels[i + 1] if has_below else None,
        }
    return truth
