"""One image's page: the image with named vertebrae and the lines that were measured, and a table of measures."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import View
from vertebra_kp.evaluation.uncertainty.calibration import Interval
from vertebra_kp.measures import Measurement
from vertebra_kp.reports.drawing import spine_drawing
from vertebra_kp.reports.html import render
from vertebra_kp.reports.interpretation import Interpretation

UNITS = {"deg": "°", "mm": " mm", "%": " %", "ratio": ""}
DIGITS = {"deg": 1, "mm": 1, "%": 1, "ratio": 2}
CURVATURE = "Curvature"  # the group that is measured once in an image; all others are measured level by level


@dataclass(frozen=True)
class Name:
    """What people call a measure: ``short`` under the heading of its ``group``, ``alone`` elsewhere."""

    view: View
    group: str
    short: str
    alone: str = ""
    grading: str = ""


NAMES = {
    "cobb_main": Name("AP", CURVATURE, "Cobb angle, largest visible"),
    "cobb_pt": Name("AP", CURVATURE, "Cobb angle, proximal thoracic"),
    "cobb_mt": Name("AP", CURVATURE, "Cobb angle, main thoracic"),
    "cobb_tl": Name("AP", CURVATURE, "Cobb angle, thoracolumbar / lumbar"),
    "cobb_aasce_1": Name("AP", CURVATURE, "AASCE protocol, main"),
    "cobb_aasce_2": Name("AP", CURVATURE, "AASCE protocol, second"),
    "cobb_aasce_3": Name("AP", CURVATURE, "AASCE protocol, third"),
    "laterolisthesis_mm": Name("AP", "Laterolisthesis", "towards image left", "laterolisthesis [mm]"),
    "laterolisthesis_percent": Name("AP", "Laterolisthesis", "of the endplate below", "laterolisthesis [%]"),
    "lumbar_lordosis": Name("LA", CURVATURE, "Lumbar lordosis"),
    "cervical_lordosis": Name("LA", CURVATURE, "Cervical lordosis"),
    "sacral_slope": Name("LA", CURVATURE, "Sacral slope"),
    "slip_percent": Name("LA", "Slips", "slip, antero- positive", "slip [%]", "Meyerding"),
    "slip_mm": Name("LA", "Slips", "slip", "slip [mm]"),
    "disc_angle": Name("LA", "Angles", "disc angle"),
    "segmental_angle": Name("LA", "Angles", "segmental angle"),
    "anterior_disc_height": Name("LA", "Discs", "anterior height", "anterior disc height"),
    "posterior_disc_height": Name("LA", "Discs", "posterior height", "posterior disc height"),
    "disc_height_index_depth": Name("LA", "Discs", "index, by disc depth", "disc height index, by disc depth"),
    "disc_height_index_body": Name("LA", "Discs", "index, by body above", "disc height index, by body above"),
    "anterior_height": Name("LA", "Vertebrae", "anterior height", "anterior height of the body"),
    "posterior_height": Name("LA", "Vertebrae", "posterior height", "posterior height of the body"),
    "wedge_ratio": Name("LA", "Vertebrae", "anterior / posterior", "anterior / posterior height"),
    "wedge_loss": Name("LA", "Vertebrae", "wedge loss", "", "Genant"),
    "crush_loss": Name("LA", "Vertebrae", "crush loss", "", "Genant"),
}


Entry = tuple[Measurement, Interval | None]


@dataclass(frozen=True)
class Group:
    """Columns of measures; ``rows`` are (level, an entry for each); ``hidden`` is what no level has, and why."""

    title: str
    head: list[str]
    rows: list[tuple[str, list[Entry | None]]]
    hidden: list[tuple[str, str]]


def film_page(title: str, film: np.ndarray, found: Interpretation) -> str:
    """``film`` ``[H, W]`` uint8 as displayed; a self-contained document."""
    entries: dict[str, list[Entry]] = defaultdict(list)
    for measurement, interval in zip(found.measurements, found.intervals, strict=True):
        entries[measurement.name].append((measurement, interval))
    groups: dict[str, dict[str, list[Entry]]] = defaultdict(dict)  # by title and column
    for name, about in NAMES.items():
        if about.view == found.spine.schema.view:
            groups[about.group][about.short] = entries[name]
    return render(
        "film.html",
        title=title,
        found=found,
        drawing=spine_drawing(film, found),
        curvature=[(name, entry) for name, column in groups.pop(CURVATURE).items() for entry in column],
        groups=[_group(group, columns) for group, columns in groups.items()],
        absent=_absent(found),
        coverage=next((i.coverage for i in found.intervals if i is not None), None),
        names=NAMES,
        units=UNITS,
        number=number,
    )


def number(value: float, unit: str) -> str:
    """With the digits that its unit has, and no minus before a zero."""
    return f"{round(value, DIGITS[unit]) + 0.0:.{DIGITS[unit]}f}"


def _group(title: str, columns: dict[str, list[Entry]]) -> Group:
    """A row for each level where something was measured; what could be measured nowhere is said once."""
    by_level = {name: {entry[0].at: entry for entry in column} for name, column in columns.items()}
    shown = [name for name, column in columns.items() if any(m.value is not None for m, _ in column)]
    hidden = []
    for name in columns:
        if name not in shown:
            reasons = {m.reason or "" for m, _ in columns[name]}
            hidden.append((name, reasons.pop() if len(reasons) == 1 else "no level shows what it needs"))
    rows = [(at, [by_level[name].get(at) for name in shown]) for at in next(iter(by_level.values()))]
    measured = [(at, row) for at, row in rows if any(e is not None and e[0].value is not None for e in row)]
    return Group(title, shown, measured, hidden)


def _absent(found: Interpretation) -> list[tuple[str, float]]:
    """Levels that the network calls absent, with their presence."""
    schema = found.spine.schema
    corners = zip(found.spine.points_xy_image, schema.exists, strict=True)
    whole = [np.isfinite(points[exists]).all() for points, exists in corners]
    levels = zip(schema.levels, found.presence, whole, strict=True)
    return [(level, float(presence)) for level, presence, there in levels if not there]
