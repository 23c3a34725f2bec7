"""``calibration.json``: what was learned about a network's errors."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_json
from vertebra_kp.evaluation.uncertainty.calibration import (
    Calibration,
    FilmErrors,
    calibration_from_dict,
    check_schema,
    seen_points,
)
from vertebra_kp.evaluation.uncertainty.shape import ShapeModel, shape_model_from_dict
from vertebra_kp.evaluation.uncertainty.trust import TrustModel, signs_of, trust_from_dict
from vertebra_kp.inference.batch import Prediction
from vertebra_kp.inference.weights import is_weights

log = logging.getLogger(__name__)

FILE = "calibration.json"  # beside a run's metrics.json


@dataclass(frozen=True)
class Calibrated:
    """Factors of regions and intervals, the shapes of labelled spines, and what good films look like."""

    calibration: Calibration
    shapes: ShapeModel
    trust: TrustModel
    patients: frozenset[str] = frozenset()
    """``patient_mark`` of each patient whose films made it: on those it cannot be judged."""

    def corrected(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Corners ``[levels, 4, 2]`` that heatmaps and shapes agree on, and each one's surprise ``[levels, 4]``.

        See ``ShapeModel.corrected``; vertebrae that the network calls absent stay where they are, with nan.
        """
        seen = seen_points(prediction.points_xy_image, prediction.presence)
        doubts = self.calibration.true_covariances(prediction.covariances)
        corrected, surprise = self.shapes.corrected(seen, doubts)
        points = np.where(np.isfinite(corrected), corrected, prediction.points_xy_image)
        return points, surprise

    def of_others(self, films: Sequence[FilmErrors]) -> list[FilmErrors]:
        """The films whose patients have not made the calibration: those that it can be judged on."""
        return [film for film in films if patient_mark(film.group) not in self.patients]

    def distrust(self, prediction: Prediction) -> float:
        """How odd the film looks beside good ones; see ``TrustModel``."""
        return self.trust.distrust(signs_of_prediction(prediction, self.shapes))


def patient_mark(group: str) -> str:
    """Tells patients apart without naming them."""
    return hashlib.sha256(group.encode()).hexdigest()[:12]


def signs_of_prediction(prediction: Prediction, shapes: ShapeModel) -> dict[str, float]:
    return signs_of(prediction.points_xy_image, prediction.scores, prediction.presence, shapes)


def save_calibrated(calibrated: Calibrated, path: Path, about: dict[str, Any]) -> None:
    """``about`` holds the ``mark`` of the network."""
    content = {
        "about": about,
        "patients": sorted(calibrated.patients),
        "calibration": calibrated.calibration.as_dict(),
        "trust": calibrated.trust.as_dict(),
        "shapes": calibrated.shapes.as_dict(),
    }
    write_json(content, path)


def calibration_of(checkpoint: Path) -> Path:
    """Where a checkpoint's calibration is: in the run's folder, or beside a file of weights."""
    return (checkpoint.parent if is_weights(checkpoint) else checkpoint.parent.parent) / FILE


def find_calibrated(given: Path | None, checkpoint: Path, schema: Schema, mark: str) -> Calibrated | None:
    """The calibration that was named, else the one in the run's folder, None where there is none that fits.

    Raises UserError where the named one is of another network (``mark`` is this one's) or cannot be read.
    """
    if given is not None:
        return load_calibrated(given, schema, mark)
    beside = calibration_of(checkpoint)
    if not beside.is_file():
        return None
    try:
        return load_calibrated(beside, schema, mark)
    except UserError as error:
        log.warning("note: no intervals: %s", error)
        return None


def load_calibrated(path: Path, schema: Schema, mark: str | None = None) -> Calibrated:
    """Raises UserError for a file that is missing, broken, of another schema or (``mark``) another network."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        calibration = calibration_from_dict(content["calibration"])
        trust = trust_from_dict(content["trust"])
        check_schema(calibration, schema)
        if mark is not None and content["about"].get("mark") != mark:
            raise UserError(
                "it is of other weights, another decoding or another ensemble; calibrate this network as it is "
                "used now"
            )
        return Calibrated(
            calibration,
            shape_model_from_dict(content["shapes"], schema),
            trust,
            frozenset(content["patients"]),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "calibrate the network"
        raise UserError(f"{path}: no calibration that can be read ({error!r}); {remedy}") from None
