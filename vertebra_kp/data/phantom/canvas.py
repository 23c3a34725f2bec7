"""The film as a grid of pixel centres in millimetres, and the drawing of shapes on it."""

from dataclasses import dataclass

import cv2
import numpy as np

from vertebra_kp.core.geometry import points_to_indices

SHIFT = 4  # fractional bits of cv2's vertex coordinates


def ellipse(centre: np.ndarray, radii: tuple[float, float], tilt_deg: float = 0.0) -> np.ndarray:
    """Twenty points of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return np.asarray(centre) + turned(circle * radii, tilt_deg)


def rounded(polygon: np.ndarray, passes: int = 2) -> np.ndarray:
    """The closed polygon with its corners cut off ``passes`` times (Chaikin 1974)."""
    for _ in range(passes):
        following = np.roll(polygon, -1, axis=0)
        cut = np.stack((0.75 * polygon + 0.25 * following, 0.25 * polygon + 0.75 * following), axis=1)
        polygon = cut.reshape(-1, 2)
    return polygon


def bow(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Twelve points of the quadratic Bezier curve."""
    t = np.linspace(0, 1, 12)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def turned(points: np.ndarray, angle_deg: float) -> np.ndarray:
    """Points turned clockwise on the screen about the origin."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.asarray(points) @ np.array([[c, s], [-s, c]])


@dataclass(frozen=True)
class Canvas:
    """Frame of one film: ``size`` (height, width) and ``spacing_mm`` of a pixel.

    ``origin_mm`` is the patient-frame point under the film's top left corner; with ``mirrored`` the film's
    x runs against the patient frame's.
    """

    size: tuple[int, int]
    spacing_mm: float
    origin_mm: tuple[float, float]
    mirrored: bool = False

    @property
    def direction(self) -> float:
        return -1.0 if self.mirrored else 1.0

    @property
    def corners_mm(self) -> np.ndarray:
        """``[2, 2]``: the patient-frame points under the film's top left and bottom right corners."""
        height, width = self.size
        reach = np.array([self.direction * width, height]) * self.spacing_mm
        return np.stack((self.origin_mm, self.origin_mm + reach))

    def to_image(self, points_mm: np.ndarray) -> np.ndarray:
        """Patient millimetres to continuous image coordinates."""
        offset = np.asarray(points_mm) - self.origin_mm
        return offset * (self.direction / self.spacing_mm, 1 / self.spacing_mm)

    def shapes(
        self,
        polygons: list[np.ndarray],
        *,
        value: int = 255,
        outline: int | None = None,
        line_mm: float = 1.0,
        onto: np.ndarray | None = None,
    ) -> np.ndarray:
        """Polygons in mm, filled with ``value`` of 255 and edged with ``outline``, as a uint8 map."""
        layer = np.zeros(self.size, np.uint8) if onto is None else onto
        vertices = [self._fixed(p) for p in polygons]
        if value:
            for v in vertices:
                cv2.fillPoly(layer, [v], value, cv2.LINE_AA, SHIFT)
        if outline:
            thickness = max(1, round(line_mm / self.spacing_mm))
            cv2.polylines(layer, vertices, True, outline, thickness, cv2.LINE_AA, SHIFT)
        return layer

    def lines(
        self, polylines: list[np.ndarray], *, value: int, line_mm: float, onto: np.ndarray | None = None
    ) -> np.ndarray:
        """Open polylines in mm of the given width, as a uint8 map."""
        layer = np.zeros(self.size, np.uint8) if onto is None else onto
        thickness = max(1, round(line_mm / self.spacing_mm))
        cv2.polylines(layer, [self._fixed(p) for p in polylines], False, value, thickness, cv2.LINE_AA, SHIFT)
        return layer

    def blurred(self, layer: np.ndarray, sigma_mm: float) -> np.ndarray:
        return cv2.GaussianBlur(layer, (0, 0), sigma_mm / self.spacing_mm)

    def coarse(self, factor: int) -> "Canvas":
        """The same field with pixels ``factor`` times as large, for what has no fine detail."""
        height, width = self.size
        size = -(-height // factor), -(-width // factor)
        return Canvas(size, self.spacing_mm * factor, self.origin_mm, self.mirrored)

    def finer(self, layer: np.ndarray, factor: int) -> np.ndarray:
        """A map of ``coarse(factor)`` on this canvas."""
        height, width = layer.shape
        grown = cv2.resize(layer, (width * factor, height * factor), interpolation=cv2.INTER_LINEAR)
        return grown[: self.size[0], : self.size[1]]

    def body_window(
        self, centre_mm: np.ndarray, tilt_deg: float, reach_mm: float
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
        """Pixels within ``reach_mm`` of a centre, and their x, y (mm) in a frame turned by ``tilt_deg``.

        Returns None when the film shows none of them.
        """
        height, width = self.size
        cx, cy = self.to_image(centre_mm)
        reach = reach_mm / self.spacing_mm
        x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 1, width)
        y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 1, height)
        if x0 >= x1 or y0 >= y1:
            return None
        step = np.float32(self.spacing_mm)
        ahead, above = -points_to_indices(np.array((cx, cy)))
        dx = (np.arange(x0, x1, dtype=np.float32) + np.float32(ahead)) * step * self.direction
        dy = (np.arange(y0, y1, dtype=np.float32) + np.float32(above)) * step
        c, s = np.float32(np.cos(np.deg2rad(tilt_deg))), np.float32(np.sin(np.deg2rad(tilt_deg)))
        dx, dy = dx.astype(np.float32)[None], dy[:, None]
        return (slice(y0, y1), slice(x0, x1)), c * dx + s * dy, c * dy - s * dx

    def _fixed(self, polygon_mm: np.ndarray) -> np.ndarray:
        return np.round(points_to_indices(self.to_image(polygon_mm)) * (1 << SHIFT)).astype(np.int32)
