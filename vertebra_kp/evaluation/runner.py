"""A network measured on labelled films, in the original films' pixels; numbers are returned, callers write."""

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.films import FilmLabels, Films
from vertebra_kp.data.loader import sequential
from vertebra_kp.evaluation.metrics import FilmResult, film_errors
from vertebra_kp.evaluation.missing import filled
from vertebra_kp.inference.doubts import COLLAPSED_BELOW
from vertebra_kp.inference.prediction import Prediction, check_finite
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.streams import in_streams

# What a trained network may be measured under: everything else has made it, or decides what it is given.


@dataclass(frozen=True, kw_only=True)
class Evaluated(FilmResult):
    """A film's result with the classes of its labels (``view``, ``slips`` [levels], ``image_class``) and the whole
    prediction."""

    view: int
    slips: np.ndarray
    image_class: int
    prediction: Prediction


def evaluate_films(
    predictor: Predictor, films: Films, *, limit: int | None = None, shown: int = 0, progress: bool = False
) -> list[Evaluated]:
    """Predict every film (the first ``limit`` of them) in float32.

    ``films`` are kept in the pixels that the predictor asks for. Raises UserError for a film on which the network
    gives no finite numbers. The first ``shown`` predictions and the ``shown``
    with the largest error keep image and heatmaps, for pictures.
    """

    def work(places: list[tuple[int, int]]) -> list[tuple[FilmLabels, Prediction]]:
        batch = [films.at(*place) for place in places]
        predictions = predictor.predict_films(batch, with_maps=shown > 0)
        return list(zip([film.labels() for film in batch], predictions, strict=True))

    order = sequential(len(films))[:limit]
    results = in_streams(work, order, batch_size=predictor.batch_size)
    evaluated: list[Evaluated] = []
    worst: list[int] = []
    for labels, prediction in tqdm(
        results, "evaluating", len(order), unit="film", leave=False, disable=not progress
    ):
        check_finite(prediction, predictor.schema)
        evaluated.append(_evaluated(labels, prediction, predictor.schema))
        worst = sorted([*worst, len(evaluated) - 1], key=lambda i: -mean_error_px(evaluated[i]))
        for i in worst[shown:]:
            if i >= shown:
                evaluated[i] = replace(evaluated[i], prediction=evaluated[i].prediction.without_maps())
        del worst[shown:]
    return evaluated


def mean_error_px(item: Evaluated) -> float:
    """Mean radial error in px; -1 where nothing is labelled."""
    return -1.0 if (error := film_errors(item)["mre_px"]) is None else error


def _evaluated(labels: FilmLabels, prediction: Prediction, schema: Schema) -> Evaluated:
    return Evaluated(
        id=labels.id,
        group=labels.group,
        size=labels.size,
        spacing_mm=labels.spacing_mm,
        true_points=labels.points_xy_image,
        true_states=labels.states,
        points=filled(prediction.points_xy_image, schema, labels.size),
        presence=prediction.presence,
        covariances=prediction.covariances,
        anterior_side=labels.anterior_side,
        view=labels.view,
        slips=labels.slips,
        image_class=labels.image_class,
        prediction=prediction,
    )


def collapsed_share(evaluated: list[Evaluated]) -> float:
    """Share of the heatmaps of labelled corners that have no peak; 0 without any."""
    scores = np.nan_to_num(np.concatenate([item.prediction.scores[item.labelled] for item in evaluated]))
    return float((scores < COLLAPSED_BELOW).mean()) if scores.size else 0.0
