"""Pictures of images: heatmaps, vertebrae and attention, as RGB arrays ``[H, W, 3]`` uint8."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vertebra_kp.config.network import STRIDES
from vertebra_kp.core.anatomy import OUTLINE, PRESENT_FROM, Schema
from vertebra_kp.core.geometry import apply_affine, points_to_indices, scale

if TYPE_CHECKING:
    from vertebra_kp.inference.prediction import Prediction

Colour = tuple[int, int, int]

TRUE_COLOUR: Colour = (60, 220, 90)
PREDICTED_COLOUR: Colour = (255, 150, 40)
TEXT_COLOUR: Colour = (235, 235, 235)
ERROR_COLOUR: Colour = (90, 200, 255)
BACKGROUND: Colour = (24, 24, 27)

PANEL_HEIGHT = 512  # of the films in a panel, px; smaller films are enlarged to it
ATTENTION_HEIGHT = 320
ATTENTION_QUERIES = 3
ATTENTION_HEADS = 3
HEATMAP_OPACITY = 0.75
ATTENTION_OPACITY = 0.8
GAP = 8
FONT_PX = 15
SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 px
SMOOTH = (cv2.LINE_AA, SUBPIXEL_BITS)
GOLDEN_ANGLE = 0.381966  # of the hue circle: neighbouring levels get hues far apart
CHI_SQUARE_90 = -2 * np.log(1 - 0.90)  # 90 % quantile of chi-square with two degrees of freedom


@dataclass(frozen=True)
class FilmView:
    """A prediction that has its ``image``; it is shown in the network's frame.

    ``true_points_xy`` ``[levels, 4, 2]`` in that frame, nan where there is no label; ``error_px`` the mean radial
    error in pixels of the original image.
    """

    title: str
    prediction: "Prediction"
    true_points_xy: np.ndarray | None = None
    error_px: float | None = None

    @property
    def film(self) -> np.ndarray:
        assert self.prediction.image is not None  # asked for with the maps
        return self.prediction.image


def draw_vertebrae(
    image_rgb: np.ndarray,
    points_xy: np.ndarray,
    levels: Sequence[str],
    colour: Colour,
    *,
    present: np.ndarray | None = None,
    names: bool = True,
    thickness: int | None = None,
) -> np.ndarray:
    """A copy of the image with the corners of each level joined TL-TR-BR-BL, and the level's name beside it.

    ``points_xy`` ``[levels, 4, 2]`` in the image's frame; a side with a nan end is left out, so that S1 is a
    line. Levels where ``present`` ``[levels]`` is False are not drawn. ``thickness`` in px; by default it
    grows with the image.
    """
    image = _to_rgb(image_rgb).copy()
    thickness = thickness or max(1, round(min(image.shape[0] / 400, image.shape[1] / 150)))
    labels = []
    for i, (name, ring) in enumerate(zip(levels, points_xy[:, OUTLINE], strict=True)):
        known = np.isfinite(ring).all(axis=1)
        if not known.any() or (present is not None and not present[i]):
            continue
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
            if known[a] and known[b]:
                cv2.line(image, _place(ring[a]), _place(ring[b]), colour, thickness, *SMOOTH)
        for corner in ring[known]:
            cv2.circle(image, _place(corner), round((0.5 + thickness) * 2**SUBPIXEL_BITS), colour, -1, *SMOOTH)
        labels.append((name, ring[known]))
    return _draw_level_names(image, labels, colour, thickness) if names else image


def overlay_heatmaps(film: np.ndarray, heatmaps: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """The film ``[H, W]`` under its heatmaps ``[K, h, w]``, each scaled to its own peak, one hue per level.

    ``levels`` ``[K]`` numbers the level that each channel belongs to.
    """
    peaks = heatmaps.max(axis=(1, 2), keepdims=True, initial=0)
    share = np.divide(heatmaps, peaks, out=np.zeros(heatmaps.shape, np.float32), where=peaks > 0).clip(0, 1)
    colours = np.array([_level_colour(level) for level in levels], np.float32)
    weight = share / np.maximum(share.sum(axis=0), 1e-6)
    colour = np.tensordot(weight, colours, axes=(0, 0))  # [h, w, 3]
    alpha = HEATMAP_OPACITY * share.max(axis=0, initial=0)[..., None]
    # Colour and opacity are enlarged together, premultiplied: no dark fringe around a blob.
    layer = _resize(np.concatenate([colour * alpha, alpha], axis=2), film.shape[:2])
    return _to_uint8(_to_rgb(film) * (1 - layer[..., 3:]) + layer[..., :3])


def film_panel(view: FilmView, schema: Schema) -> np.ndarray:
    """Film with heatmaps beside film with true (green) and predicted (orange) vertebrae, under a heading."""
    to_panel = scale(PANEL_HEIGHT / view.film.shape[0])
    left = right = _enlarged(view.film, PANEL_HEIGHT)
    if view.prediction.heatmaps is not None:
        left = overlay_heatmaps(left, view.prediction.heatmaps, [level for level, _ in schema.channels])
    if view.true_points_xy is not None:
        # Wide below, thin above: both stay visible where they agree.
        points = apply_affine(to_panel, view.true_points_xy)
        right = draw_vertebrae(right, points, schema.levels, TRUE_COLOUR, names=False, thickness=2)
    present = view.prediction.presence >= PRESENT_FROM
    points = apply_affine(to_panel, view.prediction.points_xy)
    right = draw_vertebrae(right, points, schema.levels, PREDICTED_COLOUR, present=present, thickness=1)

    known = [] if view.error_px is None else [(f"mean error {view.error_px:.3g} px", TEXT_COLOUR)]
    absent = [level for level, there in zip(schema.levels, present, strict=True) if not there]
    if absent:
        known.append((f"absent: {', '.join(absent)}", PREDICTED_COLOUR))
    legend = [("true", TRUE_COLOUR)] if view.true_points_xy is not None else []
    legend.append(("predicted", PREDICTED_COLOUR))
    return _with_heading(film_grid([left, right], 2), [[(view.title, TEXT_COLOUR)], known, legend])


def film_grid(panels: list[np.ndarray], columns: int) -> np.ndarray:
    """Panels in rows of ``columns``, each padded to the largest. Raises ValueError without panels."""
    if not panels:
        raise ValueError("panels is empty; give at least one picture")
    from skimage.util import montage  # here: only evaluations draw grids

    columns = min(columns, len(panels))
    size = np.max([panel.shape for panel in panels], axis=0)
    shape = (-(-len(panels) // columns), columns)
    padded = [_canvas(*size[:2]) for _ in panels]
    for canvas, panel in zip(padded, panels, strict=True):
        canvas[: panel.shape[0], : panel.shape[1]] = panel
    return montage(padded, fill=BACKGROUND, grid_shape=shape, padding_width=GAP, channel_axis=-1)


def attention_panel(view: FilmView, schema: Schema, name: str = "F4") -> np.ndarray:
    """Where the last layer on map ``name`` looks from the centres of a few vertebrae: mean over heads, some heads.

    One row per query position (framed), each map scaled to its own peak. Raises ValueError when the view has
    no attention or none of its size.
    """
    attention = view.prediction.attention
    if not attention:
        raise ValueError(f"image {view.title}: attention is {attention}; ask a neck of depth >= 1 for it")
    heads = attention[name][-1]
    H, W = view.film.shape
    rows, columns = H // STRIDES[name], W // STRIDES[name]
    if heads.shape[1:] != (rows * columns, rows * columns):
        raise ValueError(
            f"image {view.title}: attention must be [heads, {rows * columns}, {rows * columns}] for an image of "
            f"{H} x {W}, got {list(heads.shape)}"
        )
    film = _enlarged(view.film, ATTENTION_HEIGHT)
    maps = [(f"mean of {len(heads)}", heads.mean(axis=0))]
    maps += [(f"head {head + 1}", heads[head]) for head in _spread(np.arange(len(heads)), ATTENTION_HEADS)]
    cells = []
    for level, row, column in _query_cells(view, schema, rows, columns):
        for title, weights in maps:
            visible = weights[row * columns + column].reshape(rows, columns)
            picture = _overlay_attention(film, visible, (row, column))
            cells.append(_with_heading(picture, [[(f"{level}, {title}", TEXT_COLOUR)]]))
    heading = f"{view.title}: attention on {name}, layer {len(attention[name])}"
    return _with_heading(film_grid(cells, len(maps)), [[(heading, TEXT_COLOUR)]])


def overlay_original(
    image_uint8: np.ndarray,
    points_xy: np.ndarray,
    presence: np.ndarray,
    schema: Schema,
    covariances: np.ndarray | None = None,
) -> np.ndarray:
    """The predicted vertebrae over the original film ``[H, W]`` or ``[H, W, 3]``, in its own pixels.

    ``points_xy`` ``[levels, 4, 2]``; levels whose ``presence`` ``[levels]`` is below 0.5 are not drawn.
    ``covariances`` ``[levels, 4, 2, 2]`` in px^2 adds the region that holds the corner with 90 % probability.
    """
    present = presence >= PRESENT_FROM
    image = draw_vertebrae(image_uint8, points_xy, schema.levels, PREDICTED_COLOUR, present=present)
    if covariances is None:
        return image
    thickness = max(1, round(image.shape[0] / 1000))
    for i, j in schema.channels:
        if present[i] and np.isfinite(covariances[i, j]).all() and np.isfinite(points_xy[i, j]).all():
            variances, axes = np.linalg.eigh(covariances[i, j])
            radii = _fixed_point(np.sqrt(CHI_SQUARE_90 * variances.clip(0))[::-1])
            angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))  # of the longer radius, x towards y
            cv2.ellipse(image, _place(points_xy[i, j]), radii, angle, 0, 360, ERROR_COLOUR, thickness, *SMOOTH)
    return image


def _query_cells(view: FilmView, schema: Schema, rows: int, columns: int) -> list[tuple[str, int, int]]:
    """Names and (row, column) of the F4 cells under the first, a middle and the last vertebra."""
    points = view.prediction.points_xy
    located = np.flatnonzero(np.isfinite(points).all(axis=-1).any(axis=-1))
    height, width = view.film.shape
    cells = []
    for i in _spread(located, ATTENTION_QUERIES):
        x, y = np.nanmean(points[i], axis=0)
        row, column = int(y / height * rows), int(x / width * columns)
        cells.append((schema.levels[i], min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)))
    return cells


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the values, evenly from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)]


def _overlay_attention(film: np.ndarray, attention: np.ndarray, query: tuple[int, int]) -> np.ndarray:
    height, width = film.shape[:2]
    rows, columns = attention.shape
    share = (attention / max(attention.max(), 1e-12)).astype(np.float32)
    share = cv2.resize(share, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    bgr = cv2.applyColorMap(_to_uint8(255 * share), cv2.COLORMAP_INFERNO)
    alpha = ATTENTION_OPACITY * np.sqrt(share)[..., None]  # the root keeps weak attention visible
    picture = _to_uint8(film * (1 - alpha) + alpha * bgr[..., ::-1])
    top, left = query[0] * height / rows, query[1] * width / columns
    first, last = np.array([(left, top), (left + width / columns, top + height / rows)])
    return cv2.rectangle(picture, _place(first), _place(last), (255, 255, 255), 1, *SMOOTH)


def _draw_level_names(
    image: np.ndarray, labels: list[tuple[str, np.ndarray]], colour: Colour, thickness: int
) -> np.ndarray:
    """Names right of their vertebrae, or left of them where the film ends."""
    height, width = image.shape[:2]
    bodies = [np.ptp(corners[:, 1]) for _, corners in labels if len(corners) > 2]
    body = float(np.median(bodies)) if bodies else height
    size = round(max(12, min(height / 36, 0.75 * body)))
    font = _font(size, "DejaVuSans-Bold")
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    gap, stroke = 3 * thickness + size / 3, max(1, size // 12)
    for name, corners in labels:
        x, y, anchor = corners[:, 0].max() + gap, corners[:, 1].mean(), "lm"
        if x + draw.textlength(name, font) > width:
            x, anchor = corners[:, 0].min() - gap, "rm"
        draw.text((x, y), name, colour, font, anchor, stroke_width=stroke, stroke_fill=(0, 0, 0))
    return np.array(picture)


def _with_heading(picture: np.ndarray, lines: list[list[tuple[str, Colour]]]) -> np.ndarray:
    """The picture under lines of text, each made of coloured pieces; what is too long ends in an ellipsis."""
    line_height = round(1.3 * FONT_PX)
    heading = _canvas(line_height * len(lines) + GAP // 2, picture.shape[1])
    canvas = Image.fromarray(heading)
    draw = ImageDraw.Draw(canvas)
    font = _font(FONT_PX)
    for i, pieces in enumerate(lines):
        x = 2.0
        for text, colour in pieces:
            text = _shorten(text, picture.shape[1] - x - 2, draw, font)
            draw.text((x, (i + 0.5) * line_height), text, colour, font, "lm")
            x += draw.textlength(text, font) + FONT_PX
    return np.concatenate([np.array(canvas), picture])


def _shorten(text: str, width: float, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    shorter = (text[:end] + "…" for end in reversed(range(len(text))))
    return next((shown for shown in (text, *shorter) if draw.textlength(shown, font) <= width), "…")


@cache
def _font(size: int, face: str = "DejaVuSans") -> ImageFont.FreeTypeFont:
    """DejaVu comes with matplotlib and has the letters that file names may hold."""
    file = distribution("matplotlib").locate_file(f"matplotlib/mpl-data/fonts/ttf/{face}.ttf")
    return ImageFont.truetype(str(file), size)


def _level_colour(level: int) -> np.ndarray:
    hue = round(180 * (level * GOLDEN_ANGLE % 1)) % 180  # OpenCV counts hues in steps of 2 degrees
    return cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]


def _place(point_xy: np.ndarray) -> tuple[int, int]:
    """A point in continuous coordinates as OpenCV's drawing takes it."""
    return _fixed_point(points_to_indices(point_xy))


def _fixed_point(values: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(np.asarray(values) * 2**SUBPIXEL_BITS).astype(int).tolist()
    return x, y


def _enlarged(film: np.ndarray, height: int) -> np.ndarray:
    return _to_rgb(_resize(film, (height, round(film.shape[1] * height / film.shape[0]))))


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By OpenCV, whose resize keeps the continuous frame (edges on edges)."""
    shrinks = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _canvas(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(image).clip(0, 255).astype(np.uint8)
