"""One film's page: the film with numbered vertebrae and the lines that were measured, and a table of measures."""

import html

import numpy as np

from vertebra_kp.core.anatomy import View
from vertebra_kp.evaluation.uncertainty.calibration import Interval
from vertebra_kp.measures import Measurement
from vertebra_kp.reports.html import page, table
from vertebra_kp.reports.interpretation import Reading
from vertebra_kp.reports.spine_svg import film_svg

UNITS = {"deg": "°", "mm": " mm", "%": " %", "ratio": ""}
DIGITS = {"deg": 1, "mm": 1, "%": 1, "ratio": 2}
NAMES = {
    "cobb_main": "Cobb angle, largest seen",
    "cobb_pt": "Cobb angle, proximal thoracic",
    "cobb_mt": "Cobb angle, main thoracic",
    "cobb_tl": "Cobb angle, thoracolumbar / lumbar",
    "cobb_aasce_1": "AASCE protocol, main",
    "cobb_aasce_2": "AASCE protocol, second",
    "cobb_aasce_3": "AASCE protocol, third",
    "lumbar_lordosis": "Lumbar lordosis",
    "cervical_lordosis": "Cervical lordosis",
    "sacral_slope": "Sacral slope",
    "laterolisthesis_mm": "step to image left",
    "laterolisthesis_percent": "of the endplate below",
    "slip_percent": "slip, antero- positive",
    "slip_mm": "slip",
    "disc_angle": "disc angle",
    "segmental_angle": "segmental angle",
    "anterior_disc_height": "anterior height",
    "posterior_disc_height": "posterior height",
    "disc_height_index_depth": "index, by disc depth",
    "disc_height_index_body": "index, by body above",
    "anterior_height": "anterior height",
    "posterior_height": "posterior height",
    "wedge_ratio": "anterior / posterior",
    "wedge_loss": "wedge loss",
    "crush_loss": "crush loss",
}
GRADES = {"slip_percent": "Meyerding", "wedge_loss": "Genant", "crush_loss": "Genant"}
# (title, measures): of the film as a whole, then level by level
WHOLE: dict[View, tuple[str, ...]] = {
    "AP": ("cobb_main", "cobb_pt", "cobb_mt", "cobb_tl", "cobb_aasce_1", "cobb_aasce_2", "cobb_aasce_3"),
    "LA": ("lumbar_lordosis", "cervical_lordosis", "sacral_slope"),
}
BY_LEVEL: dict[View, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "AP": (("Steps to the side", ("laterolisthesis_mm", "laterolisthesis_percent")),),
    "LA": (
        ("Slips", ("slip_percent", "slip_mm")),
        ("Angles", ("disc_angle", "segmental_angle")),
        (
            "Discs",
            (
                "anterior_disc_height",
                "posterior_disc_height",
                "disc_height_index_depth",
                "disc_height_index_body",
            ),
        ),
        ("Vertebrae", ("anterior_height", "posterior_height", "wedge_ratio", "wedge_loss", "crush_loss")),
    ),
}
NOT_FROM_CORNERS: dict[View, str] = {
    "AP": "axial rotation, balance of the trunk",
    "LA": "pelvic incidence and tilt, sagittal vertical axis, biconcave fractures",
}


def film_page(title: str, film: np.ndarray, reading: Reading) -> str:
    """``film`` ``[H, W]`` uint8 as displayed; a self-contained document."""
    view = reading.spine.schema.view
    found = list(zip(reading.measurements, reading.intervals, strict=True))
    text = _whole(found, view) + _levels(found, view) + _unseen(reading)
    picture = film_svg(film, reading)
    sheet = f'<div class="sheet"><div class="film">{picture}</div><div class="text">{text}</div></div>'
    return page(title, [_about(reading), _warning(reading), _remarks(reading), sheet, _notes(reading)])


Entry = tuple[Measurement, Interval | None]


def value_text(entry: Entry, *, coverage: bool = True) -> str:
    """Such as "12.3° (90 %: 10.1 to 14.0), Meyerding I"; or a dash with the reason on its tooltip. HTML."""
    measurement, interval = entry
    if measurement.value is None:
        return f'<span class="quiet" title="{html.escape(measurement.reason or "")}">–</span>'
    digits, unit = DIGITS[measurement.unit], UNITS[measurement.unit]
    text = f"{round(measurement.value, digits) + 0.0:.{digits}f}{unit}"  # no minus before a zero
    if interval is not None:
        promised = f"{100 * interval.coverage:.0f} %: " if coverage else ""
        ends = f"{promised}{interval.low:.{digits}f} to {interval.high:.{digits}f}"
        text += f' <span class="quiet">({ends})</span>'
    if measurement.grade is not None and measurement.grade != "0":
        text += f", {GRADES[measurement.name]} {measurement.grade}"
    return text


def _about(reading: Reading) -> str:
    spine = reading.spine
    side = f", anterior at the {spine.anterior_side}" if spine.anterior_side else ""
    spacing = "size of a pixel not known" if spine.spacing_mm is None else f"{spine.spacing_mm:.4g} mm a pixel"
    size = "" if spine.size is None else f"{spine.size[1]} x {spine.size[0]} pixels, "
    kind = {"AP": "Frontal", "LA": "Lateral"}[spine.schema.view]
    first, last = spine.schema.levels[0], spine.schema.levels[-1]
    return f'<p class="quiet">{kind} film, {first} to {last}{side}; {size}{spacing}.</p>'


def _warning(reading: Reading) -> str:
    if reading.trusted is not False:
        return ""
    share = f"{100 * (reading.share_as_odd or 0):.1g} %"
    return (
        '<p class="warning"><b>Do not trust this reading.</b> The film, or what was found on it, is unlike the '
        f"films that the network is known to work on: {share} of them look as odd. Is it of the right region and "
        "view, upright and whole?</p>"
    )


def _remarks(reading: Reading) -> str:
    moved = ("Corners were moved to where heatmaps and the shapes of spines agree.",) if reading.corrected else ()
    remarks = (*moved, *reading.remarks)
    return f'<ul class="small">{"".join(f"<li>{html.escape(r)}</li>" for r in remarks)}</ul>' if remarks else ""


def _whole(found: list[Entry], view: View) -> str:
    rows = [
        (NAMES[m.name], m.at, value_text((m, interval)) if m.value is not None else _reason(m))
        for m, interval in found
        if m.name in WHOLE[view]
    ]
    return f"<h3>Curvature</h3>{table(('measure', 'between', ''), rows, numbers_from=9)}"


def _reason(measurement: Measurement) -> str:
    return f'<span class="quiet">not measurable: {html.escape(measurement.reason or "")}</span>'


def _levels(found: list[Entry], view: View) -> str:
    """A table per group, a row per level; what could be measured nowhere is told once."""
    parts = []
    for title, names in BY_LEVEL[view]:
        columns = {name: {m.at: (m, i) for m, i in found if m.name == name} for name in names}
        shown = {n: c for n, c in columns.items() if any(m.value is not None for m, _ in c.values())}
        places = list(next(iter(columns.values())))
        if shown:
            rows = [
                (
                    at,
                    *(value_text(column[at], coverage=False) if at in column else "" for column in shown.values()),
                )
                for at in places
                if any(at in column and column[at][0].value is not None for column in shown.values())
            ]
            parts.append(f"<h3>{title}</h3>" + table(("", *(NAMES[n] for n in shown)), rows, numbers_from=9))
        hidden = [name for name in names if name not in shown]
        for name in hidden:
            reasons = {m.reason for m, _ in columns[name].values()}
            reason = reasons.pop() if len(reasons) == 1 else "no level shows what it needs"
            parts.append(
                f'<p class="quiet small">{title}, {NAMES[name]}: not measurable, {html.escape(reason or "")}.</p>'
            )
    return "".join(parts)


def _unseen(reading: Reading) -> str:
    """Levels with their presence where the network calls them absent."""
    schema, points = reading.spine.schema, reading.spine.points_xy_image
    absent = [
        f"{level} ({100 * presence:.0f} %)"
        for level, presence, corners, exists in zip(
            schema.levels, reading.presence, points, schema.exists, strict=True
        )
        if not np.isfinite(corners[exists]).all()
    ]
    if not absent:
        return ""
    return (
        f"<h3>Not seen</h3><p>{', '.join(absent)}: in brackets how probable the network holds it to be there.</p>"
    )


def _notes(reading: Reading) -> str:
    coverage = next((100 * interval.coverage for interval in reading.intervals if interval is not None), 90)
    told = (
        f"In brackets: intervals that hold the truth in {coverage:.0f} % of films like those that they were "
        "calibrated on, which did not train the network. That is an average: findings that are rare among those "
        "films may be held less often."
    )
    without = "Values have no intervals: they need a calibration on images enough."
    how = told if any(reading.intervals) else without
    return (
        f'<h2>Notes</h2><p class="small">{how} Corners alone do not '
        f"give: {NOT_FROM_CORNERS[reading.spine.schema.view]}. Research software: no medical device, no "
        "substitute for a reader.</p>"
    )
