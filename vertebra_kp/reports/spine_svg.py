"""A film as scalable vector graphics: outlines, numbers, regions of corners, angles as a reader draws them."""

import cv2
import numpy as np

from vertebra_kp.measures import Measurement
from vertebra_kp.reports.html import jpeg_uri
from vertebra_kp.reports.interpretation import Reading

FILM_HEIGHT = 1000  # pixels that a film is shown with at most
DRAWN = ("cobb_pt", "cobb_mt", "cobb_tl", "lumbar_lordosis", "cervical_lordosis")
COLOURS = ("#ffd43b", "#63e6be", "#ff8787")  # of the angles, in this order
OUTLINE, REGION = "#74c0fc", "#ffa94d"
PLAIN_REGION = 0.02  # of the picture's height: half an axis of the largest region that is drawn plainly
REACH = 0.3  # of the film's width: how far an endplate's line is drawn on


def film_svg(film: np.ndarray, reading: Reading, *, height: int = FILM_HEIGHT) -> str:
    """The film with outlines, numbers, regions of the corners and the lines of the measured angles."""
    factor = min(1.0, height / film.shape[0])
    small = film if factor == 1 else cv2.resize(film, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape
    spine = reading.spine
    points = spine.points_xy_image * factor
    stroke = max(1.0, rows / 600)
    marks = []
    if reading.regions is not None:
        marks += [
            _ellipse(points[i, j], reading.regions[i, j] * factor**2, stroke, rows)
            for i, j in np.argwhere(np.isfinite(points).all(axis=-1))
        ]
    for level, corners, exists in zip(spine.schema.levels, points, spine.schema.exists, strict=True):
        marks += _vertebra(level, corners, exists, stroke, columns)
    measured = [m for m in reading.measurements if m.value is not None]
    drawn = [m for m in measured if m.name in DRAWN] or [m for m in measured if m.name == "cobb_main"]
    for measurement, colour in zip(drawn, COLOURS, strict=False):
        marks += _angle(measurement, points, colour, stroke, (rows, columns))
    return (
        f'<svg viewBox="0 0 {columns} {rows}" font-family="system-ui, sans-serif" role="img">'
        f'<image href="{jpeg_uri(small)}" width="{columns}" height="{rows}"/>{"".join(marks)}</svg>'
    )


def _vertebra(level: str, corners: np.ndarray, exists: np.ndarray, stroke: float, width: int) -> list[str]:
    around = corners[[0, 1, 3, 2]][exists[[0, 1, 3, 2]]]
    if not np.isfinite(around).all():
        return []
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
    x, y = around.mean(axis=0)
    size = 12 * stroke
    shape = "polygon" if exists.all() else "polyline"
    return [
        f'<{shape} points="{path}" fill="none" stroke="{OUTLINE}" stroke-width="{stroke:.1f}"/>',
        _text(min(x, width - 2 * size), y, level, "#fff", size, stroke),
    ]


def _ellipse(centre: np.ndarray, region: np.ndarray, stroke: float, rows: int) -> str:
    """The larger, the fainter: where regions run into each other the film is still to be seen."""
    if not np.isfinite(region).all():
        return ""
    squares, axes = np.linalg.eigh(region)
    turn = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
    a, b = np.sqrt(squares.clip(0))[::-1]
    x, y = centre
    faint = min(1.0, PLAIN_REGION * rows / max(a, 1e-9))
    return (
        f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{a:.2f}" ry="{b:.2f}" fill="{REGION}" '
        f'fill-opacity="{0.05 * faint**2:.3f}" '
        f'stroke="{REGION}" stroke-opacity="{faint:.2f}" stroke-width="{stroke / 2:.2f}" '
        f'transform="rotate({turn:.1f} {x:.2f} {y:.2f})"/>'
    )


def _text(x: float, y: float, text: str, colour: str, size: float, stroke: float) -> str:
    """With a dark edge, to be read on bone and on air."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" stroke="#000" stroke-width="{3 * stroke:.1f}" '
        f'paint-order="stroke" font-size="{size:.0f}" text-anchor="middle" dominant-baseline="central">'
        f"{text}</text>"
    )


def _angle(
    measurement: Measurement, points: np.ndarray, colour: str, stroke: float, size: tuple[int, int]
) -> list[str]:
    """Both endplates drawn on to the side where they meet, and the angle between them, as a reader draws it."""
    ends = [points[..., *corner, :] for line in measurement.lines for corner in line.corners]
    (a, b), (c, d) = ends[:2], ends[2:]
    middles = (a + b) / 2, (c + d) / 2
    directions = [(q - p) / (np.linalg.norm(q - p) or 1) for p, q in ((a, b), (c, d))]
    gap = middles[1] - middles[0]
    # The lines come nearer to each other on the side where the angle opens to the other: label it there.
    nearer = -1.0 if (directions[1] - directions[0]) @ gap > 0 else 1.0
    reach = nearer * REACH * size[1]
    marks, ends_of_lines = [], []
    for middle, direction in zip(middles, directions, strict=True):
        start, end = middle - reach / 3 * direction, middle + reach * direction
        ends_of_lines.append(end)
        marks.append(
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
            f'stroke="{colour}" stroke-width="{1.5 * stroke:.1f}"/>'
        )
    margin = np.array((60, 20)) * stroke
    x, y = np.clip(np.mean(ends_of_lines, axis=0), margin, (size[1], size[0]) - margin)
    marks.append(_text(x, y, f"{measurement.at} {measurement.value:.1f}°", colour, 15 * stroke, stroke))
    return marks
