"""Evaluations of a run: the figures that select its best checkpoint, what TensorBoard shows, the final report."""

from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import write_csv
from vertebra_kp.data.films import Films
from vertebra_kp.data.loader import Batch, FilmDataset
from vertebra_kp.evaluation.classification import REFERENCE, TARGETS, class_headlines, classification_figures
from vertebra_kp.evaluation.metrics import film_errors, summarise
from vertebra_kp.evaluation.runner import Evaluated, collapsed_share
from vertebra_kp.inference.batch import predict_batch
from vertebra_kp.inference.overlays import FilmView
from vertebra_kp.models.network import VertebraNetwork

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
    write_csv(list(rows[0]), rows, path)


def views_of(
    network: VertebraNetwork, config: Config, films: Films, evaluated: list[Evaluated], worst: bool
) -> list[FilmView]:
    """A few films with their maps: the first of the set, the very first with attention, or the worst without."""
    errors = [film_errors(item.result)["mre_px"] for item in evaluated]
    order = list(range(len(evaluated)))
    if worst:
        order.sort(key=lambda i: -1.0 if errors[i] is None else errors[i], reverse=True)
    schema = config.data.keypoint_schema
    dataset = FilmDataset(films, schema, config.data.input_size)
    chosen = order[:VIEWS]
    batch = dataset.batch([(0, index) for index in chosen])
    predictions = predict_batch(network, batch, config, with_maps=True)
    if not worst:
        first = dataset.batch([(0, chosen[0])])
        predictions[0] = predict_batch(network, first, config, with_maps=True, with_attention=True)[0]
    return [
        _view(batch, i, prediction, schema, errors[index])
        for i, (index, prediction) in enumerate(zip(chosen, predictions, strict=True))
    ]


def _view(batch: Batch, i: int, prediction: Any, schema: Schema, error_px: float | None) -> FilmView:
    return FilmView(
        title=batch.labels[i].id,
        film=prediction.image,
        heatmaps=prediction.heatmaps,
        points_xy=prediction.points_xy,
        presence=prediction.presence,
        true_points_xy=schema.scatter(batch.points_xy[i].numpy()),
        error_px=error_px,
        attention=prediction.attention,
    )
