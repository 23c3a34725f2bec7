"""The audit as one HTML file that opens anywhere: films worst first, each with its corners and findings."""

import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vertebra_kp.audit.labels import OUTLINE, Finding
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.data.images import FilmError, read_film, to_uint8
from vertebra_kp.data.record import Record
from vertebra_kp.reports.html import jpeg_uri, page, table

PICTURE_HEIGHT = 460
PLAIN, SUSPECT = (80, 200, 80), (40, 110, 255)  # BGR: outlines of levels without and with a finding

STYLE = """
table { width: 100% } section { display: flex; gap: 1.5rem; border-top: 1px solid #d5dae0; padding: 1.25rem 0 }
section > div { flex: 1; min-width: 0 } section img { height: 460px; border-radius: 4px; background: #000 }
section h2 { font-size: 1rem; margin: 0 0 .5rem; border: 0; padding: 0; overflow-wrap: anywhere }
.bar { display: inline-block; height: .6em; background: #d9480f; border-radius: 2px; margin-right: .5em }
"""


def write_page(
    path: Path, title: str, findings: Sequence[Finding], records: Sequence[Record], schema: Schema
) -> None:
    """Findings as a self-contained page; films in the order of their worst finding."""
    by_film: dict[str, list[Finding]] = {}
    for finding in findings:
        by_film.setdefault(finding.film, []).append(finding)
    records_by_id = {record.id: record for record in records}
    parts = [_section(records_by_id[film], found, schema) for film, found in by_film.items()]
    summary = f"{len(findings)} findings on {len(by_film)} of {len(records)} films, worst first."
    legend = "Outlines: labelled vertebrae, orange where something was found; the red dot is TL."
    path.write_text(page(title, [f"<p>{summary}<br>{legend}</p>", *parts], style=STYLE), encoding="utf-8")


def _section(record: Record, findings: Sequence[Finding], schema: Schema) -> str:
    rows = [
        (
            f'<span class="bar" style="width:{60 * finding.severity:.0f}px"></span>{finding.severity:.2f}',
            html.escape(finding.kind.replace("_", " ")),
            html.escape(finding.level),
            html.escape(finding.proposal),
        )
        for finding in findings
    ]
    told = table(("severity", "finding", "level", "proposal"), rows, numbers_from=4)
    picture = _picture(record, findings, schema)
    return f"<section>{picture}<div><h2>{html.escape(record.id)}</h2>{told}</div></section>"


def _picture(record: Record, findings: Sequence[Finding], schema: Schema) -> str:
    try:
        film = to_uint8(read_film(record.image_path))
    except FilmError as error:
        return f"<p>{html.escape(str(error))}</p>"
    factor = PICTURE_HEIGHT / film.shape[0]
    small = cv2.resize(film, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    canvas = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    suspect = {finding.level for finding in findings}
    if record.points_xy_image is not None:
        for level, corners in zip(schema.levels, record.points_xy_image, strict=True):
            if not np.isfinite(corners).all():
                continue
            outline = np.rint(points_to_indices(corners[OUTLINE] * factor)).astype(np.int32)
            colour = SUSPECT if level in suspect or "" in suspect else PLAIN
            cv2.polylines(canvas, [outline], True, colour, 1, cv2.LINE_AA)
            cv2.circle(canvas, tuple(map(int, outline[0])), 2, (0, 0, 255), -1, cv2.LINE_AA)
    return f'<img alt="{html.escape(record.id)}" src="{jpeg_uri(canvas)}">'
