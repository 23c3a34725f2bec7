"""Pictures of films: heatmaps, vertebrae, attention and error figures, as RGB arrays ``[H, W, 3]`` uint8."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vertebra_kp.config.network import STRIDES
from vertebra_kp.core.anatomy import CORNERS, Schema
from vertebra_kp.core.geometry import apply_affine, points_to_indices, scale

Colour = tuple[int, int, int]

TRUE_COLOUR: Colour = (60, 220, 90)
PREDICTED_COLOUR: Colour = (255, 150, 40)
TEXT_COLOUR: Colour = (235, 235, 235)
ERROR_COLOUR: Colour = (90, 200, 255)
BACKGROUND: Colour = (24, 24, 27)

OUTLINE = ("TL", "TR", "BR", "BL")  # once around the vertebral body
PRESENT_FROM = 0.5
PANEL_HEIGHT = 512  # of the films in a panel, px; smaller films are enlarged to it
ATTENTION_HEIGHT = 320
ATTENTION_QUERIES = 3
ATTENTION_HEADS = 3
HEATMAP_OPACITY = 0.75
ATTENTION_OPACITY = 0.8
GAP = 8
FONT_PX = 15
SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 px
GOLDEN_ANGLE = 0.381966  # of the hue circle: neighbouring levels get hues far apart
CHI_SQUARE_90 = -2 * np.log(1 - 0.90)  # 90 % quantile of chi-square with two degrees of freedom


@dataclass(frozen=True)
class FilmView:
    """One film in the network's frame, with what the network said of it.

    ``film`` ``[H, W]`` uint8; ``heatmaps`` ``[K, h, w]`` of any scale, or None; ``points_xy`` and
    ``true_points_xy`` ``[levels, 4, 2]`` (nan where there is no corner or label); ``presence`` ``[levels]``
    probabilities; ``error_px`` the film's mean radial error in pixels of the original image; ``attention``
    by the neck's map one ``[heads, N, N]`` per layer, N = (H / stride) * (W / stride), rows are queries.
    """

    title: str
    film: np.ndarray
    heatmaps: np.ndarray | None
    points_xy: np.ndarray
    presence: np.ndarray
    true_points_xy: np.ndarray | None
    error_px: float | None
    attention: dict[str, list[np.ndarray]] | None


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
    for i, name in enumerate(levels):
        corners = dict(zip(CORNERS, points_xy[i], strict=True))
        ring = np.array([corners[corner] for corner in OUTLINE])
        seen = np.isfinite(ring).all(axis=1)
        if not seen.any() or (present is not None and not present[i]):
            continue
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
            if seen[a] and seen[b]:
                _line(image, ring[a], ring[b], colour, thickness)
        for corner in ring[seen]:
            _dot(image, corner, 0.5 + thickness, colour)
        labels.append((name, ring[seen]))
    return _draw_level_names(image, labels, colour, thickness) if names else image


def overlay_heatmaps(film: np.ndarray, heatmaps: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """The film ``[H, W]`` under its heatmaps ``[K, h, w]``, each scaled to its own peak, one hue per level.

    ``levels`` ``[K]`` numbers the level that each channel belongs to.
    """
    height, width = film.shape[:2]
    K, h, w = heatmaps.shape
    peaks = heatmaps.max(axis=(1, 2), keepdims=True, initial=0)
    share = np.divide(heatmaps, peaks, out=np.zeros((K, h, w), np.float32), where=peaks > 0)
    share = share.clip(0, 1)
    colours = np.array([_level_colour(level) for level in levels], np.float32)
    weight = share / np.maximum(share.sum(axis=0), 1e-6)
    colour = np.tensordot(weight, colours, axes=(0, 0))  # [h, w, 3]
    alpha = HEATMAP_OPACITY * share.max(axis=0, initial=0)[..., None]
    # Colour and opacity are enlarged together, premultiplied: no dark fringe around a blob.
    layer = _resize(np.concatenate([colour * alpha, alpha], axis=2), (height, width))
    return _to_uint8(_to_rgb(film) * (1 - layer[..., 3:]) + layer[..., :3])


def film_panel(view: FilmView, schema: Schema) -> np.ndarray:
    """Film with heatmaps beside film with true (green) and predicted (orange) vertebrae, under a heading."""
    factor = PANEL_HEIGHT / view.film.shape[0]
    film = _to_rgb(_enlarge(view.film, factor))
    left = right = film
    if view.heatmaps is not None:
        left = overlay_heatmaps(film, view.heatmaps, [level for level, _ in schema.channels])
    if view.true_points_xy is not None:
        # Wide below, thin above: both stay visible where they agree.
        points = apply_affine(scale(factor), view.true_points_xy)
        right = draw_vertebrae(right, points, schema.levels, TRUE_COLOUR, names=False, thickness=2)
    present = view.presence >= PRESENT_FROM
    points = apply_affine(scale(factor), view.points_xy)
    right = draw_vertebrae(right, points, schema.levels, PREDICTED_COLOUR, present=present, thickness=1)

    panel = _side_by_side([left, right])
    known = [] if view.error_px is None else [(f"mean error {view.error_px:.3g} px", TEXT_COLOUR)]
    absent = [level for level, there in zip(schema.levels, present, strict=True) if not there]
    if absent:
        known.append((f"absent: {', '.join(absent)}", PREDICTED_COLOUR))
    legend = [("true", TRUE_COLOUR)] if view.true_points_xy is not None else []
    legend.append(("predicted", PREDICTED_COLOUR))
    return _with_heading(panel, [[(view.title, TEXT_COLOUR)], known, legend])


def film_grid(panels: list[np.ndarray], columns: int) -> np.ndarray:
    """Panels in rows of ``columns``, each padded to the largest. Raises ValueError without panels."""
    if not panels:
        raise ValueError("panels is empty; give at least one picture")
    columns = min(columns, len(panels))
    height = max(panel.shape[0] for panel in panels)
    width = max(panel.shape[1] for panel in panels)
    rows = -(-len(panels) // columns)
    grid = _canvas(rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        grid[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return grid


def attention_panel(view: FilmView, schema: Schema, name: str = "F4") -> np.ndarray:
    """Where the last layer on map ``name`` looks from the centres of a few vertebrae: mean over heads, some heads.

    One row per query position (framed), each map scaled to its own peak. Raises ValueError when the view has
    no attention or none of its size.
    """
    if not view.attention:
        raise ValueError(f"film {view.title}: attention is {view.attention}; ask a neck of depth >= 1 for it")
    heads = view.attention[name][-1]
    H, W = view.film.shape
    rows, columns = H // STRIDES[name], W // STRIDES[name]
    if heads.shape[1:] != (rows * columns, rows * columns):
        raise ValueError(
            f"film {view.title}: attention must be [heads, {rows * columns}, {rows * columns}] for a film of "
            f"{H} x {W}, got {list(heads.shape)}"
        )
    film = _to_rgb(_enlarge(view.film, ATTENTION_HEIGHT / H))
    maps = [(f"mean of {len(heads)}", heads.mean(axis=0))]
    maps += [(f"head {head + 1}", heads[head]) for head in _spread(np.arange(len(heads)), ATTENTION_HEADS)]
    cells = []
    for level, row, column in _query_cells(view, schema, rows, columns):
        for title, attention in maps:
            seen = attention[row * columns + column].reshape(rows, columns)
            picture = _overlay_attention(film, seen, (row, column))
            cells.append(_with_heading(picture, [[(f"{level}, {title}", TEXT_COLOUR)]]))
    return _with_heading(
        film_grid(cells, len(maps)),
        [[(f"{view.title}: attention on {name}, layer {len(view.attention[name])}", TEXT_COLOUR)]],
    )


def plot_error_per_level(per_level: dict[str, float | None], title: str, unit: str = "px") -> np.ndarray:
    """Bars of the mean radial error of each level; a level without a figure keeps an empty place."""
    # Imported here: the training loop should not pay for it before the first evaluation.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, 0.5 * len(per_level) + 1.5), 3.4), dpi=130, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [np.nan if value is None else value for value in per_level.values()]
    bars = axes.bar(list(per_level), np.nan_to_num(values), color=np.array(PREDICTED_COLOUR) / 255, width=0.7)
    texts = ["–" if np.isnan(value) else f"{value:.3g}" for value in values]
    axes.bar_label(bars, texts, padding=2, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(f"mean radial error [{unit}]", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


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
            _error_ellipse(image, points_xy[i, j], covariances[i, j], thickness)
    return image


def _error_ellipse(image: np.ndarray, centre_xy: np.ndarray, covariance: np.ndarray, thickness: int) -> None:
    variances, axes = np.linalg.eigh(covariance)
    radii = np.sqrt(CHI_SQUARE_90 * variances.clip(0))
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))  # of the longer radius, x towards y
    cv2.ellipse(
        image,
        _fixed_point(points_to_indices(centre_xy)),
        _fixed_point(radii[::-1]),
        angle,
        0,
        360,
        ERROR_COLOUR,
        thickness,
        cv2.LINE_AA,
        SUBPIXEL_BITS,
    )


def _query_cells(view: FilmView, schema: Schema, rows: int, columns: int) -> list[tuple[str, int, int]]:
    """Names and (row, column) of the F4 cells under the first, a middle and the last vertebra."""
    located = np.flatnonzero(np.isfinite(view.points_xy).all(axis=-1).any(axis=-1))
    height, width = view.film.shape
    cells = []
    for i in _spread(located, ATTENTION_QUERIES):
        x, y = np.nanmean(view.points_xy[i], axis=0)
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
    bottom, right = top + height / rows, left + width / columns
    frame = [(left, top), (right, top), (right, bottom), (left, bottom)]
    for a, b in zip(frame, frame[1:] + frame[:1], strict=True):
        _line(picture, np.array(a), np.array(b), (255, 255, 255), 1)
    return picture


def _draw_level_names(
    image: np.ndarray, labels: list[tuple[str, np.ndarray]], colour: Colour, thickness: int
) -> np.ndarray:
    """Names right of their vertebrae, or left of them where the film ends."""
    if not labels:
        return image
    height, width = image.shape[:2]
    bodies = [np.ptp(corners[:, 1]) for _, corners in labels if len(corners) > 2]
    body = float(np.median(bodies)) if bodies else height
    size = round(max(12, min(height / 36, 0.75 * body)))
    font = _font(size, "DejaVuSans-Bold")
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for name, corners in labels:
        gap = 3 * thickness + size / 3
        x, y, anchor = corners[:, 0].max() + gap, corners[:, 1].mean(), "lm"
        if x + draw.textlength(name, font) > width:
            x, anchor = corners[:, 0].min() - gap, "rm"
        stroke = max(1, size // 12)
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
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int, face: str = "DejaVuSans") -> ImageFont.FreeTypeFont:
    matplotlib = find_spec("matplotlib")  # brings DejaVu, which has the letters that film names may hold
    assert matplotlib is not None
    assert matplotlib.origin is not None
    return ImageFont.truetype(Path(matplotlib.origin).parent / f"mpl-data/fonts/ttf/{face}.ttf", size)


def _level_colour(level: int) -> np.ndarray:
    hue = round(180 * (level * GOLDEN_ANGLE % 1)) % 180  # OpenCV counts hues in steps of 2 degrees
    return cv2.cvtColor(np.uint8([[[hue, 220, 255]]]), cv2.COLOR_HSV2RGB)[0, 0]


def _line(image: np.ndarray, a_xy: np.ndarray, b_xy: np.ndarray, colour: Colour, thickness: int) -> None:
    a, b = (_fixed_point(points_to_indices(point)) for point in (a_xy, b_xy))
    cv2.line(image, a, b, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _dot(image: np.ndarray, centre_xy: np.ndarray, radius: float, colour: Colour) -> None:
    centre = _fixed_point(points_to_indices(centre_xy))
    cv2.circle(image, centre, round(radius * 2**SUBPIXEL_BITS), colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed_point(values: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(np.asarray(values) * 2**SUBPIXEL_BITS).astype(int).tolist()
    return x, y


def _enlarge(film: np.ndarray, factor: float) -> np.ndarray:
    height, width = film.shape
    return _resize(film, (round(height * factor), round(width * factor)))


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By OpenCV, whose resize keeps the continuous frame (edges on edges)."""
    shrinks = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    gap = _canvas(pictures[0].shape[0], GAP // 2)
    return np.concatenate([piece for picture in pictures for piece in (gap, picture)][1:], axis=1)


def _canvas(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(image).clip(0, 255).astype(np.uint8)
