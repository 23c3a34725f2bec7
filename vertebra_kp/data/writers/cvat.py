"""CVAT: skeletons of all films in one ``annotations.xml``, "CVAT for images 1.1", and the labels they need.

Layout, coordinates and flags as in ``data/sources/cvat.py``, which reads the file back. A level is a skeleton
with every corner that its schema has, because CVAT cannot draw one that lacks points (its issue 8844): a corner
beyond the film's edge is ``outside``, one that is not known is ``outside`` and ``occluded``. Levels with neither a
labelled nor an outside corner are left out, so a missing vertebra is unlabelled when read back. The format has no
place for spacing, groups and scores.

To import: make a task or project of the same films, paste ``cvat_labels.json`` into the tab "Raw" of its labels,
then "Upload annotations" with ``annotations.xml`` as CVAT 1.1. CVAT finds the films by their names.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, LEVELS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.cvat import ANNOTATIONS
from vertebra_kp.data.writers.files import write_texts

LABELS = "cvat_labels.json"

FLAGS = {State.LABELLED: ("0", "0"), State.OUTSIDE: ("1", "0")}  # outside, occluded
HIDDEN = ("1", "1")  # any other state

# the picture of a skeleton in CVAT, in percent of its box
PLACES = {"TL": (20, 20), "TR": (80, 20), "BL": (20, 80), "BR": (80, 80)}
EDGES = (("TL", "TR"), ("TR", "BR"), ("BR", "BL"), ("BL", "TL"))

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def write(films: Sequence[LabelledFilm], folder: Path) -> None:
    for film in films:
        if _NOT_XML.search(film.file):
            raise UserError(f"film {film.file!r} has a character that XML cannot hold; rename it")
    corners = _corners_of_levels(films)
    annotations = Element("annotations")
    SubElement(annotations, "version").text = "1.1"
    annotations.append(_meta(len(films), corners))
    for number, film in enumerate(films):
        annotations.append(_image(number, film))
    ElementTree.indent(annotations)
    xml = ElementTree.tostring(annotations, "utf-8", xml_declaration=True).decode()
    write_texts(folder, [(ANNOTATIONS, xml), (LABELS, json.dumps(_raw_labels(corners), indent=2))])


def _corners_of_levels(films: Sequence[LabelledFilm]) -> dict[str, list[str]]:
    """The corners of every level that a schema of the films has, from head to foot."""
    schemas = {film.schema.name: film.schema for film in films}.values()
    corners = {
        level: [corner for corner, exists in zip(CORNERS, of_level, strict=True) if exists]
        for schema in schemas
        for level, of_level in zip(schema.levels, schema.exists, strict=True)
    }
    return {level: corners[level] for level in LEVELS if level in corners}


def _meta(size: int, corners: dict[str, list[str]]) -> Element:
    meta = Element("meta")
    task = SubElement(meta, "task")
    SubElement(task, "name").text = "vertebra_kp"
    SubElement(task, "size").text = str(size)
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for level, names in corners.items():
        _add_label(labels, name=level, kind="skeleton", svg=_picture(names))
        for name in names:
            _add_label(labels, name=name, kind="points", parent=level)
    return meta


def _add_label(labels: Element, *, name: str, kind: str, **more: str) -> None:
    label = SubElement(labels, "label")
    SubElement(label, "name").text = name
    SubElement(label, "type").text = kind
    SubElement(label, "attributes")
    for tag, text in more.items():
        SubElement(label, tag).text = text


def _raw_labels(corners: dict[str, list[str]]) -> list[dict[str, object]]:
    """The same labels as CVAT takes them when a task is made."""
    return [
        {
            "name": level,
            "type": "skeleton",
            "attributes": [],
            "sublabels": [{"name": name, "type": "points", "attributes": []} for name in names],
            "svg": _picture(names),
        }
        for level, names in corners.items()
    ]


def _picture(names: list[str]) -> str:
    """SVG of a skeleton: its edges, then its points, numbered from 1."""
    nodes = {name: number for number, name in enumerate(names, start=1)}
    parts = []
    for start, end in EDGES:
        if start in nodes and end in nodes:
            (x1, y1), (x2, y2) = PLACES[start], PLACES[end]
            parts.append(
                f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="black" stroke-width="0.5" '
                f'data-type="edge" data-node-from="{nodes[start]}" data-node-to="{nodes[end]}"></line>'
            )
    for name, number in nodes.items():
        x, y = PLACES[name]
        parts.append(
            f'<circle r="1.5" cx="{x}" cy="{y}" stroke="black" fill="#b3b3b3" stroke-width="0.1" '
            f'data-type="element node" data-element-id="{number}" data-node-id="{number}" '
            f'data-label-name="{name}"></circle>'
        )
    return "".join(parts)


def _image(number: int, film: LabelledFilm) -> Element:
    height, width = film.size
    image = Element("image", id=str(number), name=film.file, width=str(width), height=str(height))
    for i, level in enumerate(film.schema.levels):
        exists, points, states = film.schema.exists[i], film.points_xy_image[i], film.states[i]
        labelled = states == State.LABELLED
        if not (labelled | (states == State.OUTSIDE)).any():
            continue
        # CVAT wants a place for hidden points as well: where an annotator finds them, should they be shown
        place = points[labelled].mean(axis=0) if labelled.any() else np.array([width / 2, height / 2])
        skeleton = SubElement(image, "skeleton", label=level, source="file", z_order="0")
        for j in np.flatnonzero(exists):
            outside, occluded = FLAGS.get(State(states[j]), HIDDEN)
            x, y = points[j] if labelled[j] else place
            flags = {"outside": outside, "occluded": occluded, "points": f"{x:.4f},{y:.4f}"}
            SubElement(skeleton, "points", {"label": CORNERS[j], "source": "file", **flags})
    return image
