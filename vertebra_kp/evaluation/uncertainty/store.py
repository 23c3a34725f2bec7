"""``calibration.json``: what was learned about a network's errors."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_json, write_json
from vertebra_kp.evaluation.uncertainty.calibration import Calibration, FilmErrors, reported_points
from vertebra_kp.evaluation.uncertainty.shape import ShapeContent, ShapeModel, shape_model_from_dict
from vertebra_kp.evaluation.uncertainty.trust import TrustModel, signs_of
from vertebra_kp.inference.network_file import is_exported, is_weights
from vertebra_kp.inference.prediction import Prediction

log = logging.getLogger(__name__)

FILE = "calibration.json"  # beside a run's metrics.json


class CalibrationFile(TypedDict):
    """``about`` says what made it; ``mark`` in it is the network's fingerprint."""

    about: dict[str, Any]
    patients: list[str]
    calibration: Calibration
    trust: TrustModel
    shapes: ShapeContent


@dataclass(frozen=True)
class Calibrated:
    """Factors of regions and intervals, the shapes of labelled spines, and the signs of good films."""

    calibration: Calibration
    shapes: ShapeModel
    trust: TrustModel
    patients: frozenset[str] = frozenset()
    """``patient_fingerprint`` of each patient whose films made it: on those it cannot be judged."""

    def corrected(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Corners ``[levels, 4, 2]`` that heatmaps and shapes agree on, and each one's surprise ``[levels, 4]``.

        See ``ShapeModel.corrected``; vertebrae that the network calls absent stay where they are, with nan.
        """
        reported = reported_points(prediction.points_xy_image, prediction.presence)
        covariances = self.calibration.true_covariances(prediction.covariances)
        corrected, surprise = self.shapes.corrected(reported, covariances)
        points = np.where(np.isfinite(corrected), corrected, prediction.points_xy_image)
        return points, surprise

    def of_others(self, films: Sequence[FilmErrors]) -> list[FilmErrors]:
        """The films whose patients have not made the calibration: those that it can be judged on."""
        return [film for film in films if patient_fingerprint(film.group) not in self.patients]

    def ood_score(self, prediction: Prediction) -> float:
        """Out-of-distribution score, the higher the less like the good films; see ``TrustModel``."""
        return self.trust.score(signs_of(prediction, self.shapes))


def patient_fingerprint(group: str) -> str:
    """Distinguishes patients without naming them."""
    return hashlib.sha256(group.encode()).hexdigest()[:12]


def save_calibrated(calibrated: Calibrated, path: Path, about: Mapping[str, Any]) -> None:
    """``about`` holds the network's fingerprint as ``mark``."""
    content = {
        "about": dict(about),
        "patients": sorted(calibrated.patients),
        "calibration": calibrated.calibration.as_dict(),
        "trust": asdict(calibrated.trust),
        "shapes": calibrated.shapes.as_dict(),
    }
    write_json(content, path)


def calibration_of(checkpoint: Path) -> Path:
    """Where a checkpoint's calibration is: in the run's folder, or beside weights or an exported network."""
    beside = is_weights(checkpoint) or is_exported(checkpoint.parent)
    return (checkpoint.parent if beside else checkpoint.parent.parent) / FILE


def find_calibrated(given: Path | None, checkpoint: Path, schema: Schema, fingerprint: str) -> Calibrated | None:
    """The calibration that was named, else the one in the run's folder, None where there is none that fits.

    Raises UserError where the named one is of another network (than that of ``fingerprint``) or cannot be read.
    """
    if given is not None:
        return load_calibrated(given, schema, fingerprint)
    beside = calibration_of(checkpoint)
    if not beside.is_file():
        return None
    try:
        return load_calibrated(beside, schema, fingerprint)
    except UserError as error:
        log.warning("note: no intervals: %s", error)
        return None


def load_calibrated(path: Path, schema: Schema, fingerprint: str | None = None) -> Calibrated:
    """Raises UserError for a file that is missing, broken, of another schema or, by ``fingerprint``, network."""
    content = read_json(path, CalibrationFile, remedy="calibrate the network again")
    try:
        made_for = content["calibration"].schema
        if made_for != schema.name:
            raise UserError(f"the calibration is of {made_for}, the network predicts {schema.name}")
        if fingerprint is not None and content["about"].get("mark") != fingerprint:
            raise UserError(
                "it is of other weights, another decoding or another ensemble; calibrate this network itself"
            )
        shapes = shape_model_from_dict(content["shapes"], schema)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Calibrated(content["calibration"], shapes, content["trust"], frozenset(content["patients"]))
