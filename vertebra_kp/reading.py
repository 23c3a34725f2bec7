"""A predicted film read as a clinician would: measures with intervals, regions of corners, trust."""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.anatomy import Schema, Side
from vertebra_kp.calibrated import Calibrated
from vertebra_kp.inference import Prediction
from vertebra_kp.measures import Measurement, Spine, measure
from vertebra_kp.uncertainty.calibration import Interval, seen_points, widened
from vertebra_kp.uncertainty.propagate import standard_error

TRUSTED_FROM = 0.02  # share of good films that look as odd: below it a film's reading is marked


@dataclass(frozen=True)
class Reading:
    """One film's measures; ``intervals`` one per measurement, and ``regions`` ``[levels, 4, 2, 2]`` px² and
    ``share_as_odd`` of the good films, are None without a calibration."""

    spine: Spine
    presence: np.ndarray
    measurements: list[Measurement]
    intervals: list[Interval | None]
    regions: np.ndarray | None = None
    share_as_odd: float | None = None

    @property
    def trusted(self) -> bool | None:
        return None if self.share_as_odd is None else self.share_as_odd >= TRUSTED_FROM


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
    share_as_odd = calibrated.trust.share_as_odd(calibrated.distrust(prediction))
    return Reading(spine, prediction.presence, measurements, intervals, regions, share_as_odd)
