"""A run's report: one HTML page of what an evaluation found, made from its folder without the network."""

import csv
import html
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_text
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.evaluation.agreement import agreement, auc
from vertebra_kp.evaluation.metrics import FilmResult, film_errors
from vertebra_kp.evaluation.store import Evaluation, Picture, load_evaluation
from vertebra_kp.evaluation.uncertainty.calibration import FilmErrors, errors_of, seen_points
from vertebra_kp.evaluation.uncertainty.coverage import cross_coverage
from vertebra_kp.reports.film_page import DIGITS, NAMES, UNITS
from vertebra_kp.reports.html import jpeg_uri, page, plot, table
from vertebra_kp.reports.plots import (
    bland_altman,
    cumulative_errors,
    errors_by_level,
    reliability,
    roc,
)
from vertebra_kp.reports.plots import robustness as robustness_plot

ROBUSTNESS = "robustness.csv"
PROMISED = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WORST_SHARE = 0.1  # of the films, by their mean error, that a distrust should notice
FEWEST_PAIRS = 10  # of a measure: fewer make no Bland-Altman plot
TRUE, PREDICTED = "#51cf66", "#ffa94d"
ALONE = {
    "laterolisthesis_mm": "laterolisthesis [mm]",
    "laterolisthesis_percent": "laterolisthesis [%]",
    "slip_mm": "slip [mm]",
    "slip_percent": "slip [%]",
    "anterior_disc_height": "anterior disc height",
    "posterior_disc_height": "posterior disc height",
    "disc_height_index_depth": "disc height index, by disc depth",
    "disc_height_index_body": "disc height index, by body above",
    "anterior_height": "anterior height of the body",
    "posterior_height": "posterior height of the body",
    "wedge_ratio": "anterior / posterior height",
}
HEADLINES = {
    "mre_px": "Mean radial error, px",
    "median_px": "Median radial error, px",
    "mre_percent_diagonal": "Mean radial error, % of the diagonal",
    "median_percent_diagonal": "Median radial error, % of the diagonal",
    "mre_mm": "Mean radial error, mm",
    "median_mm": "Median radial error, mm",
    "level_shift_rate": "Share of films off by a level",
    "presence_precision": "Precision of presence",
    "presence_recall": "Recall of presence",
    "smape_published": "SMAPE as published, %",
    "smape_per_angle": "SMAPE per angle, %",
}


def write_report(folder: Path, out: Path) -> None:
    """The report of the evaluation in ``folder``; raises UserError where there is none."""
    evaluation = load_evaluation(folder)
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'metrics.json'} cannot be read ({error}); measure again") from None
    schema = evaluation.schema
    errors = [errors_of(result, schema) for result in evaluation.results]
    parts = [
        _about(metrics, evaluation),
        "<h2>Summary</h2>" + _summary(metrics),
        "<h2>Errors</h2>" + _errors(evaluation, metrics),
        "<h2>Measures</h2>" + _measures(errors),
        "<h2>Coverage</h2>" + _coverage(errors, schema, metrics),
        _trust(evaluation),
        _robustness(folder, metrics),
        "<h2>Worst films</h2>" + _films(evaluation, evaluation.worst),
        "<h2>Films of median error</h2>" + _films(evaluation, evaluation.median),
        "<h2>Where this comes from</h2>" + _provenance(metrics),
    ]
    title = f"{metrics.get('config', {}).get('name', folder.name)}: {schema.name}, {len(errors)} films"
    write_text(page(title, parts), out)


def _about(metrics: dict[str, Any], evaluation: Evaluation) -> str:
    patients = len({result.group for result in evaluation.results})
    split = metrics.get("split")
    told = [
        f"source {metrics.get('source')}" + (f", split {', '.join(split)}" if split else ""),
        f"{patients} patients",
        *(f"{name} {metrics[name]}" for name in ("step", "seeds") if metrics.get(name) is not None),
    ]
    return f'<p class="quiet">{html.escape("; ".join(told))}. Intervals are 95 %, from resampled patients.</p>'


def _summary(metrics: dict[str, Any]) -> str:
    rows = []
    for name, title in HEADLINES.items():
        if metrics.get(name) is not None:
            rows.append((title, f"{metrics[name]:.3g}", _ends(metrics.get(f"{name}_ci95"))))
    angles = metrics.get("cobb_mae_deg") or []
    intervals = metrics.get("cobb_mae_deg_ci95") or [None] * len(angles)
    for k, (angle, interval) in enumerate(zip(angles, intervals, strict=True), 1):
        rows.append((f"AASCE angle {k}, mean absolute error, degrees", f"{angle:.3g}", _ends(interval)))
    return table(("", "", "95 %"), rows)


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"


def _errors(evaluation: Evaluation, metrics: dict[str, Any]) -> str:
    errors = np.stack([result.errors_px for result in evaluation.results])  # [films, levels, 4]
    spacing = np.array([np.nan if r.spacing_mm is None else r.spacing_mm for r in evaluation.results])
    in_mm = bool(np.isfinite(spacing).all())
    unit = "mm" if in_mm else "px"
    if in_mm:
        errors = errors * spacing[:, None, None]
    every = errors[np.isfinite(errors)]
    by_level = [errors[:, i][np.isfinite(errors[:, i])] for i in range(len(evaluation.schema.levels))]
    figures = plot(cumulative_errors(every, unit), "cumulative error curve") + plot(
        errors_by_level(evaluation.schema.levels, by_level, unit), "error by level"
    )
    return f'<div class="grid">{figures}</div>' + _sdr(metrics, "mm") + _sdr(metrics, "px")


def _sdr(metrics: dict[str, Any], unit: str) -> str:
    rates = metrics.get(f"sdr_{unit}")
    if not rates:
        return ""
    per_level = [(name, part[f"sdr_{unit}"]) for name, part in metrics["per_level"].items()]
    rows = [(name, *(f"{part[t]:.1f}" for t in rates)) for name, part in [("all", rates), *per_level] if part]
    head = ("", *(f"≤ {t} {unit}" for t in rates))
    return f"<h3>Successful detection rate, percent of corners</h3>{table(head, rows)}"


def _measures(errors: list[FilmErrors]) -> str:
    """Agreement of each measure, predicted from predicted corners and from true ones."""
    pairs = defaultdict(list)
    for film in errors:
        for predicted, true, _ in film.measures:
            pairs[predicted.name].append((true, predicted.value, predicted.unit))
    rows, plots = [], []
    for name, found in pairs.items():
        if len(found) < FEWEST_PAIRS:
            continue
        true, predicted = (np.array([entry[k] for entry in found], dtype=float) for k in (0, 1))
        unit, told = UNITS[found[0][2]].strip(), agreement(true, predicted)
        digits = DIGITS[found[0][2]] + 1
        title = _title(name)
        rows.append(
            (
                title,
                str(told.count),
                f"{told.mean_absolute:.{digits}f} {unit}",
                f"{told.bias:+.{digits}f}",
                f"{told.low:+.{digits}f} to {told.high:+.{digits}f}",
                f"{told.icc:.3f}",
            )
        )
        figure = plot(bland_altman(true, predicted, told, unit or "ratio"), f"Bland-Altman, {title}")
        plots.append(f"<figure>{figure}<figcaption>{title}</figcaption></figure>")
    if not rows:
        return '<p class="quiet">No measure was there on ten films or more.</p>'
    head = ("measure", "count", "mean absolute error", "bias", "95 % limits", "ICC(A,1)")
    return (
        table(head, rows)
        + f'<div class="grid">{"".join(plots)}</div><p class="small quiet">Bland-Altman: predicted minus true '
        "against their mean; bias and 95 % limits of agreement.</p>"
    )


def _title(name: str) -> str:
    """A film's page has a heading over what is measured; here the name stands alone."""
    return ALONE.get(name, NAMES[name])


def _coverage(errors: list[FilmErrors], schema: Schema, metrics: dict[str, Any]) -> str:
    """By the calibration that the films were measured with, else cross-conformal; the diagram always is."""
    found = {promised: cross_coverage(errors, schema, promised=promised) for promised in PROMISED}
    kept = {"corners in their regions": [found[p]["corners"]["coverage"] or 0.0 for p in PROMISED]}
    if all(found[p]["all_measures"] for p in PROMISED):
        kept["measures in their intervals"] = [found[p]["all_measures"]["coverage"] for p in PROMISED]
    crossed = "every patient judged by a calibration on the other patients of this evaluation"
    told = metrics.get("coverage")
    by = metrics.get("coverage_by", "judged by the run's calibration, made on other films")
    if told is None:
        told, by = found[0.9], crossed
    parts = [("corners", told["corners"]), ("all measures", told["all_measures"])]
    parts += [(_title(name), figures) for name, figures in told["measures"].items()]
    rows = [_coverage_row(name, figures) for name, figures in parts if figures and figures["count"]]
    head = ("", "held, %", "95 %", "count", "median width")
    diagram = plot(reliability(PROMISED, kept), "reliability")
    return (
        f'<p class="small">Regions and intervals that promise {100 * told["promised"]:g} %, {by}; in the diagram '
        f'{crossed}.</p><div class="grid">{diagram}<div>{table(head, rows)}</div></div>'
    )


def _coverage_row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    interval, width = figures["interval"], figures.get("median_width")
    return (
        name,
        f"{100 * figures['coverage']:.1f}",
        _ends([100 * end for end in interval]) if interval else "",
        str(figures["count"]),
        "" if width is None else f"{width:.3g}",
    )


def _trust(evaluation: Evaluation) -> str:
    """How well the distrust tells the films of the largest errors."""
    if evaluation.distrust is None:
        return ""
    errors = np.array([film_errors(result)["mre_px"] for result in evaluation.results], dtype=float)
    known = np.isfinite(errors)
    errors, distrust = errors[known], evaluation.distrust[known]
    limit = np.quantile(errors, 1 - WORST_SHARE)
    bad, good = distrust[errors > limit], distrust[errors <= limit]
    if not len(bad) or not len(good):
        return ""
    area = auc(bad, good)
    return (
        f"<h2>Trust</h2><p>Of a film of the worst tenth (mean error above {limit:.3g} px) and another, the "
        f"distrust picks the right one in {100 * area:.0f} % (area under the curve {area:.2f}).</p>"
        + plot(roc(bad, good), "ROC")
    )


def _robustness(folder: Path, metrics: dict[str, Any]) -> str:
    path = folder / ROBUSTNESS
    if not path.is_file():
        return ""
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["network"] != metrics.get("mark"):
                raise UserError(
                    f"{path} is of another network than the evaluation beside it; measure again with "
                    "robustness, or remove it"
                )
            kinds[row["kind"]].append((float(row["strength"]), float(row["median_px"])))
    if not kinds:
        return ""
    return "<h2>Robustness</h2>" + plot(robustness_plot(kinds, "px"), "error against strength of disturbances")


def _films(evaluation: Evaluation, pictures: dict[int, Picture]) -> str:
    shown = []
    for i, picture in pictures.items():
        result = evaluation.results[i]
        caption = f"{html.escape(result.id)}<br>{_told(result)}"
        shown.append(f"<figure>{_overlay(result, picture)}<figcaption>{caption}</figcaption></figure>")
    legend = '<p class="small quiet">Green: true corners, orange: predicted ones.</p>'
    return f'{legend}<div class="grid">{"".join(shown)}</div>'


def _told(result: FilmResult) -> str:
    figures = film_errors(result)
    shift = figures["shift_levels"]
    moved = f", {shift:+.1f} levels" if figures["shifted"] else ""
    return f"mean {figures['mre_px']:.1f} px, largest {figures['max_px']:.1f} px{moved}"


def _overlay(result: FilmResult, picture: Picture) -> str:
    height, width = picture.image.shape
    present = seen_points(result.points, result.presence)
    outlines = []
    for points, colour in ((result.true_points, TRUE), (present, PREDICTED)):
        for corners in apply_affine(picture.to_image, points):
            around = corners[[0, 1, 3, 2]]
            around = around[np.isfinite(around).all(axis=1)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
            outlines.append(
                f'<polygon points="{path}" fill="none" stroke="{colour}" stroke-width="{height / 400:.2f}"/>'
            )
    return (
        f'<span class="film"><svg viewBox="0 0 {width} {height}"><image href="{jpeg_uri(picture.image)}" '
        f'width="{width}" height="{height}"/>{"".join(outlines)}</svg></span>'
    )


def _provenance(metrics: dict[str, Any]) -> str:
    rows = [
        (title, html.escape(str(metrics[name])))
        for title, name in (
            ("code", "version"),
            ("checkpoint", "checkpoint"),
            ("in an ensemble with", "ensemble"),
            ("films", "films_identity"),
            ("SHA-256 of the split file", "split_file_sha256"),
            ("repairs of labels", "repair_file"),
            ("labels in stored order", "stored_order"),
            ("decoding", "codec"),
            ("flipped too", "flip"),
            ("hardware", "hardware"),
        )
        if metrics.get(name) not in (None, [])
    ]
    config = html.escape(yaml.safe_dump(metrics.get("config", {}), sort_keys=False))
    return table(("", ""), rows, numbers_from=9) + f"<h3>Config</h3><pre>{config}</pre>"
