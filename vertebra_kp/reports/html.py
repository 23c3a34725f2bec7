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


def image_uri(image: np.ndarray, kind: str = "jpeg") -> str:
    """An image ``[H, W]`` or RGB ``[H, W, 3]`` uint8 as an address that holds its pixels, JPEG or PNG."""
    stored = image if image.ndim == 2 else image[..., ::-1]
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    encoded = cv2.imencode(f".{kind}", stored, quality)[1]
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def figure_uri(figure: "Figure") -> str:
    return image_uri(figure_pixels(figure), "png")


def figure_pixels(figure: "Figure") -> np.ndarray:
    """A drawn figure, RGB ``[H, W, 3]`` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: pages without plots need not wait for it

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
