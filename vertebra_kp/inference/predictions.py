"""Predictions as files: JSON and CSV, every level and corner of the schema by name, original image's pixels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    NotRequired,  # pydantic asks for it below Python 3.12
)

import numpy as np
from typing_extensions import TypedDict

from vertebra_kp.core.anatomy import CORNERS, SLIP_CLASSES, VIEWS, Schema, View
from vertebra_kp.core.files import write_csv, write_json
from vertebra_kp.core.text import printable
from vertebra_kp.inference.prediction import Prediction

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomInfo

JSON_FILE, CSV_FILE = "predictions.json", "predictions.csv"
REPORT_FILE = "readings.json"  # beside them, where measurement reports are asked for
CSV_COLUMNS = ("file", "level", "presence", "corner", "x", "y", "score", "var_x", "cov_xy", "var_y")


class LevelEntry(TypedDict):
    """One vertebra: by corner (TL, TR, BL, BR) x and y in px, score in 0..1, covariance in px²; none if absent."""

    presence: float
    corners: dict[str, list[float]]
    scores: dict[str, float]
    covariances: dict[str, list[list[float]]]
    slip: NotRequired[dict[str, str | float]]


class ImageEntry(TypedDict):
    """One image of ``predictions.json``; ``size`` is height and width, coordinates are continuous.

    What only a DICOM header or a classifying network says is there where it was said. ``view`` is that of the
    keypoint schema. ``notes`` say how a DICOM file was read. ``doubts`` are reasons for a second opinion, those of
    the header among them. A network that finds and names vertebrae gives them always (then empty where there is
    none), with the probability of its names, and another likely number of vertebrae. ``results_name`` is what the
    image's files in overlays/, reports/ and so on are called, where that is not the image's own name.
    """

    file: str
    size: list[int]
    view: View
    classified_view: NotRequired[dict[str, str | float]]
    image_class: NotRequired[dict[str, str | float]]
    spacing_mm: NotRequired[float]
    spacing_from: NotRequired[str]
    view_position: NotRequired[str]
    laterality: NotRequired[str]
    notes: NotRequired[list[str]]
    doubts: NotRequired[list[str]]
    names_probability: NotRequired[float]
    alternative: NotRequired[dict[str, str | float]]
    results_name: NotRequired[str]
    levels: dict[str, LevelEntry]


class Predictions(TypedDict):
    """``predictions.json``"""

    films: list[ImageEntry]


def image_entry(prediction: Prediction, schema: Schema, header: "DicomInfo | None" = None) -> ImageEntry:
    """A prediction with what its DICOM header says."""
    levels: dict[str, LevelEntry] = {}
    for i, level in enumerate(schema.levels):
        corners = [j for j in range(len(CORNERS)) if np.isfinite(prediction.points_xy_image[i, j]).all()]
        levels[level] = {
            "presence": round(float(prediction.presence[i]), 4),
            "corners": {CORNERS[j]: _rounded(prediction.points_xy_image[i, j], 3) for j in corners},
            "scores": {CORNERS[j]: round(float(prediction.scores[i, j]), 4) for j in corners},
            "covariances": {CORNERS[j]: _rounded(prediction.covariances[i, j], 3) for j in corners},
        }
        # The lowest vertebra of a schema stands on none that the film is asked about.
        if prediction.slip_probabilities is not None and schema.exists[i, 2:].any():
            levels[level]["slip"] = _most_probable(prediction.slip_probabilities[i], SLIP_CLASSES)
    entry: ImageEntry = {
        "file": printable(prediction.file),
        "size": list(prediction.size),
        "view": schema.view,
        "levels": levels,
    }
    if prediction.view_probabilities is not None:
        entry["classified_view"] = _most_probable(prediction.view_probabilities, VIEWS)
    if prediction.image_class is not None:
        of_classes = prediction.image_class
        entry["image_class"] = _most_probable(np.array(list(of_classes.values())), tuple(of_classes))
    if prediction.names is not None or prediction.doubts:
        entry["doubts"] = list(prediction.doubts)
    if prediction.names is not None:
        names = prediction.names
        entry["names_probability"] = round(names.probability, 4)
        if names.alternative is not None:
            entry["alternative"] = {
                "name": names.alternative,
                "probability": round(names.alternative_probability, 4),
            }
    if header is not None:
        for key in ("spacing_mm", "spacing_from", "view_position", "laterality"):
            if (value := getattr(header, key)) is not None:
                entry[key] = value
        if header.notes:
            entry["notes"] = list(header.notes)
    return entry


def _most_probable(probabilities: np.ndarray, names: tuple[str, ...]) -> dict[str, str | float]:
    best = int(probabilities.argmax())
    return {"class": names[best], "probability": round(float(probabilities[best]), 4)}


def _rounded(array: np.ndarray, digits: int) -> list[Any]:
    return array.astype(float).round(digits).tolist()


def write_predictions(images: Sequence[ImageEntry], folder: Path) -> None:
    """``predictions.json`` and ``predictions.csv`` in ``folder``, each written whole or not at all."""
    write_json({"films": images}, folder / JSON_FILE)
    write_csv(CSV_COLUMNS, (row for image in images for row in _rows(image)), folder / CSV_FILE)


def _rows(image: ImageEntry) -> Iterator[dict[str, object]]:
    for name, level in image["levels"].items():
        for corner, (x, y) in level["corners"].items():
            (xx, xy), (_, yy) = level["covariances"][corner]
            values = (image["file"], name, level["presence"], corner, x, y, level["scores"][corner], xx, xy, yy)
            yield dict(zip(CSV_COLUMNS, values, strict=True))
