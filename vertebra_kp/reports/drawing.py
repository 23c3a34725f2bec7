"""An image under scalable vector graphics: outlines, level names, regions of corners, and measured angles."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from vertebra_kp.core.anatomy import OUTLINE
from vertebra_kp.measures import Measurement
from vertebra_kp.reports.html import image_uri
from vertebra_kp.reports.interpretation import Interpretation

HEIGHT = 1000  # pixels that an image is shown with at most
DRAWN = ("cobb_pt", "cobb_mt", "cobb_tl", "cervical_lordosis", "thoracic_kyphosis_t4_t12", "lumbar_lordosis")
COLOURS = ("#ffd43b", "#63e6be", "#ff8787")  # of the angles, in this order
VERTEBRA, REGION, TEXT = "#74c0fc", "#ffa94d", "#fff"
PLAIN_REGION = 0.02  # of the picture's height: half an axis of the largest region that is drawn plainly
REACH = 0.3  # of the picture's width: how far an endplate's line is drawn on
LETTER = 0.6  # width of a letter over the size of the text
NAME_IN_STEP = 0.6  # largest size of a name, of the distance of neighbouring vertebrae: names do not overlap
ANGLE_WIDTH = 0.4  # largest width of an angle's text, of the picture's width: it has room beside the spine


@dataclass(frozen=True)
class Line:
    """Through ``points`` ``[n, 2]``, back to the first one where ``closed``."""

    points: np.ndarray
    colour: str
    width: float
    closed: bool = False


@dataclass(frozen=True)
class Ellipse:
    """``radii`` (2) along axes that are turned by ``turn_deg``, x towards y; opacities in 0..1."""

    centre: np.ndarray
    radii: np.ndarray
    turn_deg: float
    colour: str
    stroke_opacity: float = 1.0
    fill_opacity: float = 1.0


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    colour: str
    size: float


@dataclass
class Drawing:
    """A picture (``href`` holds its pixels) of ``width`` x ``height`` px and what lies over it, in its frame."""

    href: str
    width: int
    height: int
    stroke: float
    ellipses: list[Ellipse] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def outline(self, points: np.ndarray, colour: str) -> None:
        """Around each vertebra of ``points`` ``[levels, 4, 2]``; corners with nan are left out."""
        for corners in points[:, OUTLINE]:
            around = corners[np.isfinite(corners).all(axis=1)]
            if len(around):
                self.lines.append(Line(around, colour, self.stroke, closed=len(around) > 2))

    def dots(self, points: np.ndarray, colour: str) -> None:
        """At each of ``points`` ``[n, 2]`` that is known."""
        known = points[np.isfinite(points).all(axis=1)]
        self.ellipses += [Ellipse(point, np.full(2, 1.5 * self.stroke), 0.0, colour) for point in known]


def drawing_of(image: np.ndarray, *, height: int) -> tuple[Drawing, float]:
    """An image ``[H, W]`` uint8, no higher than ``height``, and the factor that its coordinates shrink by."""
    factor = min(1.0, height / image.shape[0])
    small = image if factor == 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape
    return Drawing(image_uri(small), columns, rows, max(1.0, rows / 600)), factor


def spine_drawing(image: np.ndarray, found: Interpretation) -> Drawing:
    """The image ``[H, W]`` uint8 with outlines, names, regions of the corners and lines of the measured angles."""
    drawing, factor = drawing_of(image, height=HEIGHT)
    spine = found.spine
    points = spine.points_xy_image * factor
    if found.regions is not None:
        known = np.isfinite(points).all(axis=-1) & np.isfinite(found.regions).all(axis=(-2, -1))
        pairs = zip(points[known], found.regions[known] * factor**2, strict=True)
        drawing.ellipses += [_ellipse(*pair, drawing.height) for pair in pairs]
    size = min(12 * drawing.stroke, NAME_IN_STEP * _step(points[found.visible]))
    drawing.outline(points[found.visible], VERTEBRA)
    for i in np.flatnonzero(found.visible):
        x, y = points[i, spine.schema.exists[i]].mean(axis=0)
        drawing.labels.append(Label(min(x, drawing.width - 2 * size), y, spine.schema.levels[i], TEXT, size))
    measured = [m for m in found.measurements if m.value is not None]
    drawn = [m for m in measured if m.name in DRAWN] or [m for m in measured if m.name == "cobb_main"]
    for measurement, colour in zip(drawn, COLOURS, strict=False):
        _add_angle(drawing, measurement, points, colour)
    return drawing


def _step(points: np.ndarray) -> float:
    """Median distance of the middles of neighbouring vertebrae ``[levels, 4, 2]``; infinite for fewer than two."""
    middles = np.array([corners[np.isfinite(corners).all(axis=1)].mean(axis=0) for corners in points])
    return float(np.median(np.linalg.norm(np.diff(middles, axis=0), axis=1))) if len(middles) > 1 else np.inf


def _ellipse(centre: np.ndarray, region: np.ndarray, height: int) -> Ellipse:
    """The larger, the fainter: where regions overlap the image stays visible."""
    squares, axes = np.linalg.eigh(region)
    radii = np.sqrt(squares.clip(0))[::-1]
    turn_deg = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    faint = min(1.0, PLAIN_REGION * height / max(radii[0], 1e-9))
    return Ellipse(centre, radii, turn_deg, REGION, faint, 0.05 * faint**2)


def _add_angle(drawing: Drawing, measurement: Measurement, points: np.ndarray, colour: str) -> None:
    """Both endplates drawn on to the side where they meet, and the angle between them, as a reader draws it."""
    (a, b), (c, d) = ([points[..., *corner, :] for corner in line.corners] for line in measurement.lines)
    middles = (a + b) / 2, (c + d) / 2
    directions = [(q - p) / (np.linalg.norm(q - p) or 1) for p, q in ((a, b), (c, d))]
    gap = middles[1] - middles[0]
    # The lines come nearer to each other on the side where the angle opens to the other: label it there.
    nearer = -1.0 if (directions[1] - directions[0]) @ gap > 0 else 1.0
    reach = nearer * REACH * drawing.width
    ends = [middle + reach * direction for middle, direction in zip(middles, directions, strict=True)]
    for middle, direction, end in zip(middles, directions, ends, strict=True):
        start = middle - reach / 3 * direction
        drawing.lines.append(Line(np.stack([start, end]), colour, 1.5 * drawing.stroke))
    text = f"{measurement.at} {measurement.value:.1f}°"
    size = min(15 * drawing.stroke, ANGLE_WIDTH * drawing.width / (LETTER * len(text)))
    half = LETTER * size * len(text) / 2
    x, y = np.mean(ends, axis=0)
    beside = np.mean(middles, axis=0)[0] + nearer * (half + np.linalg.norm(b - a))
    x = max(x, beside) if nearer > 0 else min(x, beside)
    x, y = np.clip((x, y), (half, size), (drawing.width - half, drawing.height - size))
    drawing.labels.append(Label(x, y, text, colour, size))
