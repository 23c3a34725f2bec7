"""Evaluations of a run: the figures that select its best checkpoint, what TensorBoard shows, the final report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import SLIP_CLASSES, VIEWS, Schema
from vertebra_kp.core.files import write_csv
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.films import Films
from vertebra_kp.evaluation.classification import (
    REFERENCE,
    TARGETS,
    Target,
    class_headlines,
    classification_figures,
)
from vertebra_kp.evaluation.metric_table import figures_for
from vertebra_kp.evaluation.metrics import film_errors, summarise
from vertebra_kp.evaluation.runner import Evaluated, collapsed_share, mean_error_px
from vertebra_kp.evaluation.schema import ClassSummary, FilmFigures, Metrics, ShapeFigures
from vertebra_kp.evaluation.uncertainty.shape import SURPRISING_FROM
from vertebra_kp.evaluation.uncertainty.store import Calibrated
from vertebra_kp.inference.overlays import FilmView
from vertebra_kp.inference.predictor import Predictor

PICTURES = 4  # films that TensorBoard shows at every evaluation, and as many of the worst


def summary_of(evaluated: list[Evaluated], schema: Schema, *, bootstrap: int = 0) -> Metrics:
    summary = summarise(evaluated, schema, bootstrap=bootstrap)
    return {**summary, "collapsed_share": collapsed_share(evaluated), **class_summary(evaluated)}


def class_summary(evaluated: Sequence[Evaluated]) -> ClassSummary:
    found = [(item, item.prediction) for item in evaluated]
    pairs: dict[Target, list[tuple]] = {
        "view": [(item.view, said.view_probabilities) for item, said in found],
        "slip": [(item.slips, said.slip_probabilities) for item, said in found],
        "image_class": [
            (item.image_class, said.image_class and [*said.image_class.values()]) for item, said in found
        ],
    }
    free = evaluated[0].prediction.image_class or ()
    names: dict[Target, tuple[str, ...]] = {"view": VIEWS, "slip": SLIP_CLASSES, "image_class": tuple(free)}
    summary: ClassSummary = {}
    for target in TARGETS:
        truth, probabilities = zip(*pairs[target], strict=True)
        if probabilities[0] is not None:
            summary[target] = classification_figures(np.stack(truth), np.stack(probabilities), names[target])
    return {**summary, "classification_reference": REFERENCE} if summary else {}


def shape_figures(evaluated: Sequence[Evaluated], calibrated: Calibrated) -> ShapeFigures:
    """What the shape of spines adds: errors without and with its correction, and of corners that it flags."""
    labelled = np.stack([item.labelled for item in evaluated])
    corrected, surprises = zip(*(calibrated.corrected(item.prediction) for item in evaluated), strict=True)
    pairs = zip(evaluated, corrected, strict=True)
    before = np.stack([item.errors_px for item in evaluated])[labelled]
    moved = [replace(item, points=np.where(np.isfinite(points), points, item.points)) for item, points in pairs]
    after = np.stack([item.errors_px for item in moved])[labelled]
    flagged = np.stack(surprises)[labelled] >= SURPRISING_FROM
    return {
        "mre_px": [float(before.mean()), float(after.mean())],
        "median_px": [float(np.median(before)), float(np.median(after))],
        "flagged": int(flagged.sum()),
        "flagged_median_px": float(np.median(before[flagged])) if flagged.any() else None,
        "other_median_px": float(np.median(before[~flagged])) if not flagged.all() else None,
    }


def row_of(summary: Metrics) -> dict[str, float | None]:
    """The headline figures of an evaluation, one per column of ``metrics.csv``."""
    return figures_for("run_csv", summary) | class_headlines(summary)


def write_film_rows(evaluated: Sequence[Evaluated], path: Path) -> None:
    """One row of errors per film, as CSV."""
    write_csv(list(FilmFigures.__annotations__), [film_errors(item) for item in evaluated], path)


def first_views(evaluated: Sequence[Evaluated], predictor: Predictor, films: Films) -> list[FilmView]:
    """The first films, of ``evaluate_films`` with ``shown``; the very first with the network's attention."""
    (first,) = predictor.predict_films([films.at(0, 0)], with_attention=True)
    views = [_view(item) for item in evaluated[:PICTURES]]
    with_attention = replace(views[0].prediction, attention=first.attention)
    return [replace(views[0], prediction=with_attention), *views[1:]]


def worst_views(evaluated: Sequence[Evaluated]) -> list[FilmView]:
    """The films with the largest error, the worst first."""
    shown = [item for item in evaluated if item.prediction.image is not None]
    worst = sorted(shown, key=mean_error_px, reverse=True)
    return [_view(item) for item in worst[:PICTURES]]


def _view(item: Evaluated) -> FilmView:
    true_points_xy = apply_affine(item.prediction.matrix, item.true_points)
    return FilmView(item.id, item.prediction, true_points_xy, film_errors(item)["mre_px"])
