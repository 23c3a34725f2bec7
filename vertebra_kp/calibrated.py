"""``calibration.json``: what was learned about a network's errors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.anatomy import Schema
from vertebra_kp.errors import UserError
from vertebra_kp.inference import Prediction
from vertebra_kp.run_folder import write_json
from vertebra_kp.uncertainty.calibration import (
    Calibration,
    calibration_from_dict,
    check_schema,
    seen_points,
)
from vertebra_kp.uncertainty.shape import ShapeModel, shape_model_from_dict
from vertebra_kp.uncertainty.trust import TrustModel, signs_of, trust_from_dict

FILE = "calibration.json"  # beside a run's metrics.json


@dataclass(frozen=True)
class Calibrated:
    """Factors of regions and intervals, the shapes of labelled spines, and what good films look like."""

    calibration: Calibration
    shapes: ShapeModel
    trust: TrustModel

    def corrected(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Corners ``[levels, 4, 2]`` that heatmaps and shapes agree on, and each one's surprise ``[levels, 4]``.

        See ``ShapeModel.corrected``; vertebrae that the network calls absent stay where they are, with nan.
        """
        seen = seen_points(prediction.points_xy_image, prediction.presence)
        doubts = self.calibration.true_covariances(prediction.covariances)
        corrected, surprise = self.shapes.corrected(seen, doubts)
        points = np.where(np.isfinite(corrected), corrected, prediction.points_xy_image)
        return points, surprise

    def distrust(self, prediction: Prediction) -> float:
        """How odd the film looks beside good ones; see ``TrustModel``."""
        return self.trust.distrust(signs_of_prediction(prediction, self.shapes))


def signs_of_prediction(prediction: Prediction, shapes: ShapeModel) -> dict[str, float]:
    return signs_of(prediction.points_xy_image, prediction.scores, prediction.presence, shapes)


def save_calibrated(calibrated: Calibrated, path: Path, about: dict[str, Any]) -> None:
    content = {
        "about": about,
        "calibration": calibrated.calibration.as_dict(),
        "trust": calibrated.trust.as_dict(),
        "shapes": calibrated.shapes.as_dict(),
    }
    write_json(content, path)


def find_calibrated(given: Path | None, checkpoint: Path, schema: Schema) -> Calibrated | None:
    """The calibration that was named, else the one in the run's folder, None where there is none."""
    beside = checkpoint.parent.parent / FILE
    path = given or (beside if beside.is_file() else None)
    return None if path is None else load_calibrated(path, schema)


def load_calibrated(path: Path, schema: Schema) -> Calibrated:
    """Raises UserError for a file that is missing, broken or of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        calibration = calibration_from_dict(content["calibration"])
        check_schema(calibration, schema)
        trust = trust_from_dict(content["trust"])
        return Calibrated(calibration, shape_model_from_dict(content["shapes"], schema), trust)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no calibration that can be read ({error}); make one with calibrate.py") from None
