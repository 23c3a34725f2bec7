"""Evaluations of a run: the figures that select its best checkpoint, what TensorBoard shows, the final report."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.films import Films
from vertebra_kp.evaluation.classification import REFERENCE, TARGETS, class_headlines, classification_figures
from vertebra_kp.evaluation.metrics import film_errors, summarise
from vertebra_kp.evaluation.runner import Evaluated, collapsed_share, mean_error_px
from vertebra_kp.inference.overlays import FilmView
from vertebra_kp.inference.predictor import Predictor

VIEWS = 4  # films that TensorBoard shows at every evaluation, and as many of the worst


def summary_of(evaluated: list[Evaluated], schema: Schema, *, bootstrap: int = 0) -> dict[str, Any]:
    summary = summarise([item.result for item in evaluated], schema, bootstrap=bootstrap)
    return {**summary, "collapsed_share": collapsed_share(evaluated), **class_summary(evaluated)}


def class_summary(evaluated: list[Evaluated]) -> dict[str, Any]:
    """Figures of the classes that the network tells, by target; empty where it tells none."""
    pairs: dict[str, list[tuple]] = {
        "view": [(item.labels.view, item.prediction.view_probabilities) for item in evaluated],
        "slip": [(item.labels.slips, item.prediction.slip_probabilities) for item in evaluated],
    }
    summary: dict[str, Any] = {}
    for target, names in TARGETS.items():
        truth, probabilities = zip(*pairs[target], strict=True)
        if probabilities[0] is not None:
            summary[target] = classification_figures(np.stack(truth), np.stack(probabilities), names)
    return {**summary, "classification_reference": REFERENCE} if summary else {}


def row_of(summary: dict[str, Any]) -> dict[str, Any]:
    """The headline figures of an evaluation, one per column of ``metrics.csv``."""
    names = (
        "mre_px",
        "median_px",
        "mre_percent_diagonal",
        "level_shift_rate",
        "presence_precision",
        "presence_recall",
        "collapsed_share",
        "smape_published",
    )
    return {name: summary.get(name) for name in names} | class_headlines(summary)


def write_film_rows(evaluated: list[Evaluated], path: Path) -> None:
    """One row of errors per film, as CSV."""
    rows = [film_errors(item.result) for item in evaluated]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def first_views(evaluated: Sequence[Evaluated], predictor: Predictor, films: Films) -> list[FilmView]:
    """The first films, of ``evaluate_films`` with ``shown``; the very first with the network's attention."""
    views = [_view(item) for item in evaluated[:VIEWS]]
    (first,) = predictor.predict_films([films.at(0, 0)], with_attention=True)
    return [replace(views[0], attention=first.attention), *views[1:]]


def worst_views(evaluated: Sequence[Evaluated]) -> list[FilmView]:
    """The films with the largest error, the worst first."""
    shown = [item for item in evaluated if item.prediction.image is not None]
    worst = sorted(shown, key=mean_error_px, reverse=True)
    return [_view(item) for item in worst[:VIEWS]]


def _view(item: Evaluated) -> FilmView:
    prediction = item.prediction
    assert prediction.image is not None
    return FilmView(
        title=item.labels.id,
        film=prediction.image,
        heatmaps=prediction.heatmaps,
        points_xy=prediction.points_xy,
        presence=prediction.presence,
        true_points_xy=apply_affine(prediction.matrix, item.result.true_points),
        error_px=film_errors(item.result)["mre_px"],
        attention=None,
    )
