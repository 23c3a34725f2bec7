"""``calibration.json``: what was learned about a network's errors, and a film read with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_kp.anatomy import CORNERS, Schema, Side
from vertebra_kp.errors import UserError
from vertebra_kp.inference import Prediction
from vertebra_kp.measures import Measurement, Spine, measure
from vertebra_kp.run_folder import write_json
from vertebra_kp.uncertainty.calibration import (
    Calibration,
    Interval,
    calibration_from_dict,
    check_schema,
    seen_points,
    widened,
)
from vertebra_kp.uncertainty.propagate import standard_error
from vertebra_kp.uncertainty.shape import ShapeModel, shape_model_from_dict
from vertebra_kp.uncertainty.trust import TrustModel, signs_of

FILE = "calibration.json"  # beside a run's metrics.json
TRUSTED_BELOW = 5.0  # SD of good films: beyond it a film's reading is marked


@dataclass(frozen=True)
class Calibrated:
    """Factors of regions and intervals, the shapes of labelled spines, and what good films look like."""

    calibration: Calibration
    shapes: ShapeModel
    trust: TrustModel

    def distrust(self, prediction: Prediction) -> float:
        """SD above good films; see ``TrustModel``."""
        return self.trust.distrust(signs_of_prediction(prediction, self.shapes))


@dataclass(frozen=True)
class Reading:
    """One film's measures; ``intervals`` one per measurement, and ``regions`` ``[levels, 4, 2, 2]`` px² and
    ``distrust``, are None without a calibration."""

    spine: Spine
    presence: np.ndarray
    measurements: list[Measurement]
    intervals: list[Interval | None]
    regions: np.ndarray | None = None
    distrust: float | None = None

    @property
    def trusted(self) -> bool | None:
        return None if self.distrust is None else self.distrust < TRUSTED_BELOW


def read(
    prediction: Prediction,
    schema: Schema,
    size: tuple[int, int],
    *,
    spacing_mm: float | None = None,
    anterior_side: Side | None = None,
    calibrated: Calibrated | None = None,
) -> Reading:
    """Measure a predicted film; vertebrae that the network calls absent are not measured."""
    points = seen_points(prediction.points_xy_image, prediction.presence)
    spine = Spine(schema, points, size, spacing_mm, anterior_side)
    measurements = measure(spine)
    if calibrated is None:
        return Reading(spine, prediction.presence, measurements, [None] * len(measurements))
    calibration = calibrated.calibration
    covariances = widened(prediction.covariances)
    intervals = [
        None if m.value is None else calibration.interval(m, standard_error(m, points, covariances))
        for m in measurements
    ]
    regions = np.stack(
        [calibration.region(level, prediction.covariances[i]) for i, level in enumerate(schema.levels)]
    )
    distrust = calibrated.distrust(prediction)
    return Reading(spine, prediction.presence, measurements, intervals, regions, distrust)


def signs_of_prediction(prediction: Prediction, shapes: ShapeModel) -> dict[str, float]:
    return signs_of(
        prediction.points_xy_image, prediction.covariances, prediction.scores, prediction.presence, shapes
    )


def reading_as_dict(reading: Reading) -> dict[str, Any]:
    """Ready for JSON; a measurement has a ``value`` or a ``reason``."""
    entries = []
    for measurement, interval in zip(reading.measurements, reading.intervals, strict=True):
        entry: dict[str, Any] = {"measure": measurement.name, "at": measurement.at, "unit": measurement.unit}
        if measurement.value is None:
            entry["reason"] = measurement.reason
        else:
            entry["value"] = round(measurement.value, 4)
        if measurement.grade is not None:
            entry["grade"] = measurement.grade
        if interval is not None:
            ends = [round(interval.low, 4), round(interval.high, 4)]
            entry["interval"] = {"coverage": interval.coverage, "ends": ends}
        entries.append(entry)
    told: dict[str, Any] = {"anterior_side": reading.spine.anterior_side, "spacing_mm": reading.spine.spacing_mm}
    if reading.distrust is not None:
        told |= {"distrust": _finite(reading.distrust), "trusted": reading.trusted}
    if reading.regions is not None:
        schema = reading.spine.schema
        told["regions"] = {
            level: {CORNERS[j]: reading.regions[i, j].round(3).tolist() for j in np.flatnonzero(schema.exists[i])}
            for i, level in enumerate(schema.levels)
        }
    return told | {"measurements": entries}


def _finite(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def save_calibrated(calibrated: Calibrated, path: Path, about: dict[str, Any]) -> None:
    content = {
        "about": about,
        "calibration": calibrated.calibration.as_dict(),
        "trust": calibrated.trust.as_dict(),
        "shapes": calibrated.shapes.as_dict(),
    }
    write_json(content, path)


def load_calibrated(path: Path, schema: Schema) -> Calibrated:
    """Raises UserError for a file that is missing, broken or of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        calibration = calibration_from_dict(content["calibration"])
        check_schema(calibration, schema)
        trust = TrustModel(**content["trust"])
        return Calibrated(calibration, shape_model_from_dict(content["shapes"], schema), trust)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no calibration that can be read ({error}); make one with calibrate.py") from None
