"""One image's page: the image with named vertebrae and the lines that were measured, and a table of measures."""

from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import yaml
from pydantic import TypeAdapter

from vertebra_kp.core.anatomy import View
from vertebra_kp.evaluation.uncertainty.calibration import Interval
from vertebra_kp.measures import Measurement
from vertebra_kp.reports.drawing import spine_drawing
from vertebra_kp.reports.html import render
from vertebra_kp.reports.interpretation import Interpretation

UNITS = {"deg": "°", "mm": " mm", "%": " %", "ratio": ""}
DIGITS = {"deg": 1, "mm": 1, "%": 1, "ratio": 2}
CURVATURE = "Curvature"  # the group that is measured once in an image


@dataclass(frozen=True)
class Name:
    """What people call a measure and its grades; see ``templates/measures.yaml``."""

    short: str
    alone: str = ""
    grading: str = ""


_FILE = files("vertebra_kp.reports") / "templates" / "measures.yaml"
MEASURES = TypeAdapter(dict[View, dict[str, dict[str, Name]]]).validate_python(yaml.safe_load(_FILE.read_bytes()))
NAMES = {name: about for groups in MEASURES.values() for group in groups.values() for name, about in group.items()}
Entry = tuple[Measurement, Interval | None]


def film_page(title: str, film: np.ndarray, found: Interpretation) -> str:
    """``film`` ``[H, W]`` uint8 as displayed; a self-contained document."""
    entries: dict[str, list[Entry]] = defaultdict(list)
    for measurement, interval in zip(found.measurements, found.intervals, strict=True):
        entries[measurement.name].append((measurement, interval))
    groups = {
        title: {about.short: entries[name] for name, about in group.items()}
        for title, group in MEASURES[found.spine.schema.view].items()
    }
    return render(
        "film.html",
        title=title,
        found=found,
        drawing=spine_drawing(film, found),
        curvature=[(name, entry) for name, column in groups.pop(CURVATURE).items() for entry in column],
        groups=[_group(group, columns) for group, columns in groups.items()],
        absent=[(found.spine.schema.levels[i], found.presence[i]) for i in np.flatnonzero(~found.visible)],
        coverage=next((i.coverage for i in found.intervals if i is not None), None),
        names=NAMES,
        units=UNITS,
        number=number,
    )


def number(value: float, unit: str) -> str:
    """With the digits that its unit has, and no minus before a zero."""
    return f"{round(value, DIGITS[unit]) + 0.0:.{DIGITS[unit]}f}"


def _group(title: str, columns: dict[str, list[Entry]]) -> dict[str, object]:
    """``rows`` (level, an entry for each column of ``head``); ``hidden`` are columns without a value, and why."""
    by_level = {name: {entry[0].at: entry for entry in column} for name, column in columns.items()}
    shown = [name for name, column in columns.items() if any(m.value is not None for m, _ in column)]
    hidden = []
    for name in columns:
        if name not in shown:
            reasons = {m.reason or "" for m, _ in columns[name]}
            hidden.append((name, reasons.pop() if len(reasons) == 1 else "no level shows what it needs"))
    rows = [(at, [by_level[name].get(at) for name in shown]) for at in next(iter(by_level.values()))]
    measured = [(at, row) for at, row in rows if any(e is not None and e[0].value is not None for e in row)]
    return {"title": title, "head": shown, "rows": measured, "hidden": hidden}
