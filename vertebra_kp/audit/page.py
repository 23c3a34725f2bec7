"""The audit as one HTML file that opens anywhere: images worst first, each with its labels and findings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vertebra_kp.audit.labels import Finding
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import write_text
from vertebra_kp.core.geometry import apply_affine, scale
from vertebra_kp.data.images import FilmError, read_film, to_uint8
from vertebra_kp.data.record import Record
from vertebra_kp.reports.drawing import Drawing, drawing_of
from vertebra_kp.reports.html import render

PICTURE_HEIGHT = 460
PLAIN, SUSPECT, TOP_LEFT = "#50c850", "#ff6e28", "#ff0000"  # levels without and with a finding, the corner TL


def write_page(
    path: Path, title: str, findings: Sequence[Finding], records: Sequence[Record], schema: Schema
) -> None:
    """Findings as a self-contained page; images in the order of their worst finding."""
    by_film: dict[str, list[Finding]] = {}
    for finding in findings:
        by_film.setdefault(finding.film, []).append(finding)
    records_by_id = {record.id: record for record in records}
    sections = [(film, found, _drawing(records_by_id[film], found, schema)) for film, found in by_film.items()]
    content = {"title": title, "images": len(records), "findings": len(findings), "sections": sections}
    write_text(render("audit.html", **content), path)


def _drawing(record: Record, findings: Sequence[Finding], schema: Schema) -> Drawing | str:
    """The image with its labels, or why it cannot be read."""
    try:
        drawing, factor = drawing_of(to_uint8(read_film(record.image_path)), height=PICTURE_HEIGHT)
    except FilmError as error:
        return str(error)
    suspect = {finding.level for finding in findings}
    if record.points_xy_image is not None:
        points = apply_affine(scale(factor), record.points_xy_image)
        wrong = np.array([level in suspect or "" in suspect for level in schema.levels])
        drawing.outline(points[~wrong], PLAIN)
        drawing.outline(points[wrong], SUSPECT)
        drawing.dots(points[:, 0], TOP_LEFT)
    return drawing
