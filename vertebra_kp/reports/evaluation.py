"""A run's report: one HTML page of what an evaluation found, made from its folder without the network."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from typing_extensions import TypedDict  # of Python 3.11 pydantic takes no other

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_csv, write_text
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.evaluation.agreement import agreement, auc
from vertebra_kp.evaluation.metric_table import metrics_for
from vertebra_kp.evaluation.metrics import FilmResult, film_errors
from vertebra_kp.evaluation.robustness import FILE as ROBUSTNESS
from vertebra_kp.evaluation.schema import FilmFigures, Metrics, read_metrics
from vertebra_kp.evaluation.store import FILE as EVALUATION
from vertebra_kp.evaluation.store import Evaluation, Picture, checksum, load_evaluation
from vertebra_kp.evaluation.uncertainty.calibration import FilmErrors, errors_of, reported_points
from vertebra_kp.evaluation.uncertainty.coverage import cross_coverage
from vertebra_kp.reports import plots
from vertebra_kp.reports.drawing import Drawing, drawing_of
from vertebra_kp.reports.film_page import DIGITS, NAMES, UNITS
from vertebra_kp.reports.html import figure_uri, render

PROMISED = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WORST_SHARE = 0.1  # of the images, by their mean error, that an out-of-distribution score should flag
FEWEST_PAIRS = 10  # of a measure: fewer make no Bland-Altman plot
TRUE, PREDICTED = "#51cf66", "#ffa94d"


class _Disturbed(TypedDict):
    """What a report shows of ``robustness.Row``."""

    network: str
    kind: str
    strength: float
    median_px: float


def write_report(folder: Path, out: Path) -> None:
    """The report of the evaluation in ``folder``; raises UserError where there is none."""
    evaluation = load_evaluation(folder)
    metrics = read_metrics(folder / "metrics.json")
    if metrics.get("evaluation_sha256") not in (None, checksum(folder / EVALUATION)):
        raise UserError(f"{folder}: metrics.json and {EVALUATION} are of two evaluations; measure again")
    robustness = _robustness(folder / ROBUSTNESS, metrics.get("mark"))
    errors = [errors_of(result, evaluation.schema) for result in evaluation.results]
    config = metrics.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    page = render(
        "evaluation.html",
        title=f"{name or folder.name}: {evaluation.schema.name}, {len(errors)} images",
        metrics=metrics,
        headlines={metric.name: metric.title for metric in metrics_for("report")},
        patients=len({result.group for result in evaluation.results}),
        error_plots=_error_plots(evaluation),
        measures=_measures(errors),
        coverage=_coverage(errors, evaluation.schema, metrics),
        trust=_trust(evaluation),
        robustness=robustness,
        worst=[_shown(evaluation.results[i], picture) for i, picture in evaluation.worst.items()],
        median=[_shown(evaluation.results[i], picture) for i, picture in evaluation.median.items()],
        config=yaml.safe_dump(config or {}, sort_keys=False),
    )
    write_text(page, out)


def _error_plots(evaluation: Evaluation) -> dict[str, str]:
    """Pictures by what they show."""
    errors = np.stack([result.errors_px for result in evaluation.results])  # [films, levels, 4]
    spacing = np.array([result.spacing_mm for result in evaluation.results], dtype=float)  # nan for None
    unit = "px"
    if np.isfinite(spacing).all():
        unit, errors = "mm", errors * spacing[:, None, None]
    levels = evaluation.schema.levels
    by_level = [errors[:, i][np.isfinite(errors[:, i])] for i in range(len(levels))]
    return {
        "cumulative error curve": figure_uri(plots.cumulative_errors(errors[np.isfinite(errors)], unit)),
        "error by level": figure_uri(plots.errors_by_level(levels, by_level, unit)),
    }


def _measures(errors: list[FilmErrors]) -> list[dict[str, object]]:
    """Agreement of each measure from true corners with that from predicted ones, where there are pairs enough."""
    values = defaultdict(list)
    for film in errors:
        for pair in film.measures:
            values[pair.measurement.name, pair.measurement.unit].append((pair.true, pair.value))
    rows = []
    for (name, unit), pairs in values.items():
        if len(pairs) >= FEWEST_PAIRS:
            true, predicted = np.array(pairs, float).T
            found = agreement(true, predicted)
            figure = plots.bland_altman(true, predicted, found, UNITS[unit].strip() or "ratio")
            texts = {"label": label_of(name), "unit": UNITS[unit], "digits": DIGITS[unit] + 1}
            rows.append({**texts, "found": found, "plot": figure_uri(figure)})
    return rows


def label_of(measure: str) -> str:
    """An image's page has a heading over what is measured; here the name stands alone."""
    return NAMES[measure].alone or NAMES[measure].short


def _coverage(errors: list[FilmErrors], schema: Schema, metrics: Metrics) -> dict[str, object]:
    """By the calibration that the images were measured with, else cross-conformal; the diagram always is."""
    found = {promised: cross_coverage(errors, schema, promised=promised) for promised in PROMISED}
    corners, measures = zip(*((held["corners"], held["all_measures"]) for held in found.values()), strict=True)
    kept = {
        "corners in their regions": [share["coverage"] for share in corners],
        "measures in their intervals": [share["coverage"] if share else None for share in measures],
    }
    measured = metrics.get("coverage")
    shown = measured if isinstance(measured, dict) else found[0.9]
    named = {"corners": shown["corners"], "all measures": shown["all_measures"]}
    named |= {label_of(name): share for name, share in shown["measures"].items()}
    return {
        "crossed": shown is not measured,
        "promised": shown["promised"],
        "shares": {name: share for name, share in named.items() if share and share["count"]},
        "plot": figure_uri(plots.reliability(PROMISED, kept)),
    }


def _trust(evaluation: Evaluation) -> dict[str, object] | None:
    """How well the out-of-distribution score flags the images of the largest errors."""
    if evaluation.ood_scores is None:
        return None
    errors = np.array([film_errors(result)["mre_px"] for result in evaluation.results], dtype=float)
    known = np.isfinite(errors)
    errors, scores = errors[known], evaluation.ood_scores[known]
    limit = np.quantile(errors, 1 - WORST_SHARE)
    bad, good = scores[errors > limit], scores[errors <= limit]
    if not len(bad) or not len(good):
        return None
    return {"limit": limit, "area": auc(bad, good), "plot": figure_uri(plots.roc(bad, good))}


def _robustness(path: Path, fingerprint: object) -> str | None:
    """A plot; None where robustness was not measured."""
    if not path.is_file():
        return None
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_csv(path, _Disturbed, remedy="measure the robustness again"):
        if row["network"] != fingerprint:
            raise UserError(
                f"{path} is of another network than the evaluation beside it; measure the robustness of this "
                "network, or remove the file"
            )
        kinds[row["kind"]].append((row["strength"], row["median_px"]))
    return figure_uri(plots.robustness(kinds, "px")) if kinds else None


def _shown(result: FilmResult, picture: Picture) -> tuple[FilmFigures, Drawing]:
    """Errors of an image, and the image with its true and its predicted corners."""
    drawing, _ = drawing_of(picture.image, height=picture.image.shape[0])
    predicted = reported_points(result.points, result.presence)
    drawing.outline(apply_affine(picture.to_image, result.true_points), TRUE)
    drawing.outline(apply_affine(picture.to_image, predicted), PREDICTED)
    return film_errors(result), drawing
