"""Predictions as files: JSON and CSV, every level and corner of the schema by name, original film's pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, SLIP_CLASSES, VIEWS, Schema
from vertebra_kp.core.files import write_csv, write_json
from vertebra_kp.core.text import printable
from vertebra_kp.inference.batch import Prediction

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomInfo

CSV_COLUMNS = ("file", "level", "presence", "corner", "x", "y", "score", "var_x", "cov_xy", "var_y")
DICOM_KEYS = ("spacing_mm", "spacing_from", "view_position", "laterality")


@dataclass(frozen=True)
class FilmPrediction:
    """A prediction with the name and the size (height, width) of its film, and what a DICOM film's header says."""

    file: str
    size: tuple[int, int]
    prediction: Prediction
    header: "DicomInfo | None" = None


def film_as_dict(film: FilmPrediction, schema: Schema) -> dict[str, Any]:
    """One entry of ``predictions.json``: continuous coordinates, covariances in px².

    ``DICOM_KEYS`` are there where the film's header tells them, ``classified_view`` and the ``slip`` of each level
    where the network does. ``view`` is that of the keypoint schema.
    """
    prediction = film.prediction
    levels: dict[str, dict[str, Any]] = {}
    for i, level in enumerate(schema.levels):
        corners = [j for j in range(len(CORNERS)) if schema.exists[i, j]]
        levels[level] = {
            "presence": round(float(prediction.presence[i]), 4),
            "corners": {CORNERS[j]: _rounded(prediction.points_xy_image[i, j], 3) for j in corners},
            "scores": {CORNERS[j]: round(float(prediction.scores[i, j]), 4) for j in corners},
            "covariances": {CORNERS[j]: _rounded(prediction.covariances[i, j], 3) for j in corners},
        }
        # The lowest vertebra of a schema stands on none that the film is asked about.
        if prediction.slip_probabilities is not None and schema.exists[i, 2:].any():
            levels[level]["slip"] = _most_probable(prediction.slip_probabilities[i], SLIP_CLASSES)
    told = {}
    if prediction.view_probabilities is not None:
        told["classified_view"] = _most_probable(prediction.view_probabilities, VIEWS)
    known = {key: value for key in DICOM_KEYS if (value := getattr(film.header, key, None)) is not None}
    file = printable(film.file)
    return {"file": file, "size": list(film.size), "view": schema.view, **told, **known, "levels": levels}


def _most_probable(probabilities: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    best = int(probabilities.argmax())
    return {"class": names[best], "probability": round(float(probabilities[best]), 4)}


def _rounded(array: Any, digits: int) -> list[Any]:
    return array.astype(float).round(digits).tolist()


def write_predictions(films: list[FilmPrediction], schema: Schema, folder: Path) -> None:
    """``predictions.json`` and ``predictions.csv`` in ``folder``, each written whole or not at all."""
    entries = [film_as_dict(film, schema) for film in films]
    write_json({"films": entries}, folder / "predictions.json")
    write_csv(CSV_COLUMNS, (row for entry in entries for row in _corner_rows(entry)), folder / "predictions.csv")


def _corner_rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of ``CSV_COLUMNS`` for every corner of a film's entry."""
    for level, content in entry["levels"].items():
        for corner, (x, y) in content["corners"].items():
            (xx, xy), (_, yy) = content["covariances"][corner]
            values = (
                entry["file"],
                level,
                content["presence"],
                corner,
                x,
                y,
                content["scores"][corner],
                xx,
                xy,
                yy,
            )
            yield dict(zip(CSV_COLUMNS, values, strict=True))
