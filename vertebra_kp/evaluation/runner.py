"""A network measured on labelled films, in the original films' pixels; numbers are returned, callers write."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from vertebra_kp.config.differences import differences
from vertebra_kp.config.io import override_config
from vertebra_kp.config.schema import Config
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.films import FilmLabels, Films, ShrunkFilms
from vertebra_kp.data.loader import FilmDataset, open_batches, sequential
from vertebra_kp.evaluation.metrics import FilmResult
from vertebra_kp.inference.batch import Prediction, predict_batch
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.models.network import VertebraNetwork

# What a trained network may be measured under: everything else has made it, or decides what it is given.
MEASURABLE = ("codec.decode", "codec.dark_blur", "inference.")
COLLAPSED_BELOW = 0.1  # of a heatmap's mass inside its window: the map has no peak worth the name


@dataclass(frozen=True)
class Evaluated:
    """One film's result for the metrics and, beside it, all that is known of it and the whole prediction."""

    labels: FilmLabels
    result: FilmResult
    prediction: Prediction


def as_measured(trained: Config, overrides: Sequence[str]) -> Config:
    """The config of a trained network under other settings of decoding and inference.

    Raises UserError where an override would change what was trained.
    """
    measured = override_config(trained, overrides)
    if refused := [key for key in differences(trained, measured) if not key.startswith(MEASURABLE)]:
        raise UserError(
            f"{', '.join(refused)}: the network was trained with another value, measuring cannot change it; train "
            f"with it, or set only {MEASURABLE[0]}, {MEASURABLE[1]} and {MEASURABLE[2]}*"
        )
    return measured


def evaluate_films(
    network: VertebraNetwork,
    config: Config,
    films: Films,
    refiner: Refiner | None = None,
    *,
    limit: int | None = None,
    progress: bool = False,
) -> list[Evaluated]:
    """Predict every film (the first ``limit`` of them) in float32; the network is left in eval mode.

    With a ``refiner``, ``films`` are kept in the pixels that it asks for.
    """
    network.eval()
    first_look = films if refiner is None else ShrunkFilms(films, config.data.input_size)
    dataset = FilmDataset(first_look, config.data.keypoint_schema, config.data.input_size)
    order = sequential(len(films))[:limit]
    evaluated = []
    with (
        open_batches(dataset, order, batch_size=config.train.batch_size, workers=config.data.workers) as batches,
        tqdm(total=len(order), desc="evaluating", unit="film", leave=False, disable=not progress) as bar,
    ):
        for batch in batches:
            predictions = predict_batch(network, batch, config)
            if refiner is not None:
                schema, places = config.data.keypoint_schema, order[len(evaluated) :]
                predictions = [
                    refiner.refine(prediction, films.at(*place), schema)
                    for prediction, place in zip(predictions, places, strict=False)
                ]
            for labels, prediction in zip(batch.labels, predictions, strict=True):
                evaluated.append(Evaluated(labels, _result(labels, prediction), prediction))
            bar.update(len(predictions))
    return evaluated


def _result(labels: FilmLabels, prediction: Prediction) -> FilmResult:
    return FilmResult(
        labels.id,
        labels.group,
        labels.size,
        labels.spacing_mm,
        labels.points_xy_image,
        labels.states,
        prediction.points_xy_image,
        prediction.presence,
        prediction.covariances,
        labels.anterior_side,
    )


def collapsed_share(evaluated: list[Evaluated]) -> float:
    """Share of the heatmaps of labelled corners that have no peak; 0 without any."""
    scores = np.concatenate([item.prediction.scores[item.result.labelled] for item in evaluated])
    return float((scores < COLLAPSED_BELOW).mean()) if scores.size else 0.0
