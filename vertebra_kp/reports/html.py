"""HTML pages of one file that open anywhere: filled templates, with every picture inside the text."""

import base64
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from vertebra_kp.core.files import JPEG_QUALITY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# File names and JSON files come from strangers: whatever a template does not say itself is escaped.
TEMPLATES = Environment(
    loader=PackageLoader("vertebra_kp.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **content: object) -> str:
    """The document that the named file of ``templates/`` makes of ``content``."""
    return TEMPLATES.get_template(template).render(**content) + "\n"


def jpeg_uri(image: np.ndarray) -> str:
    """An image ``[H, W]`` uint8 as an address that holds its pixels."""
    return _uri("jpeg", cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def figure_uri(figure: "Figure") -> str:
    """A figure as an address that holds its pixels, PNG."""
    pixels = figure_pixels(figure)[..., ::-1]  # OpenCV's order is BGR
    return _uri("png", cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def figure_pixels(figure: "Figure") -> np.ndarray:
    """A drawn figure, RGB ``[H, W, 3]`` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: pages without plots need not wait for it

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _uri(kind: str, encoded: np.ndarray) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
