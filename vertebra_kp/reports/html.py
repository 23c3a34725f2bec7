"""HTML pages of one file that open anywhere: their frame, tables, and pictures inside the text."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vertebra_kp.core.files import JPEG_QUALITY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1a1f24 }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; border-top: 1px solid #d5dae0; padding-top: 1.25rem }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600; color: #4a545e }
th, td { padding: .2rem 1.1rem .2rem 0; vertical-align: top }
tbody tr { border-top: 1px solid #eceff2 } td.n, th.n { text-align: right }
.quiet { color: #6a7480 } .small { font-size: .85rem }
.warning { background: #fff1e6; border-left: 4px solid #d9480f; padding: .6rem .9rem; margin: 1rem 0 }
.sheet { display: flex; gap: 2rem; align-items: flex-start; flex-wrap: wrap }
.sheet > .film { flex: 0 1 30rem; position: sticky; top: 1rem } .sheet > .text { flex: 1 1 26rem; min-width: 0 }
.film svg, .film img { width: 100%; max-height: 94vh; background: #000; border-radius: 4px }
.grid { display: flex; gap: 1rem; flex-wrap: wrap; align-items: flex-start }
.grid figure { margin: 0; flex: 0 1 17rem }
figcaption { font-size: .85rem; color: #4a545e; overflow-wrap: anywhere } img.plot { max-width: 100% }
pre { background: #f5f7f9; padding: .8rem; overflow: auto; font-size: .8rem; max-height: 28rem }
"""


def page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """A whole document; ``parts`` are HTML, ``title`` is text."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}{style}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 1) -> str:
    """Cells are HTML; columns from ``numbers_from`` on are set to the right."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="n">{cell}</{tag}>' if i >= numbers_from else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def jpeg_uri(image: np.ndarray) -> str:
    """A film ``[H, W]`` or a BGR picture ``[H, W, 3]``, uint8, as an address that holds its pixels."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def plot(figure: "Figure", text: str) -> str:
    """A figure as an image; ``text`` stands for it where it cannot be seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: pages without plots need not wait for it

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., 2::-1]
    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    uri = f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}"
    return f'<img class="plot" alt="{html.escape(text)}" src="{uri}">'
