"""A predicted film read as a clinician would: measures with intervals, regions of corners, trust."""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema, Side
from vertebra_kp.evaluation.uncertainty.calibration import Interval, reported_points, widened
from vertebra_kp.evaluation.uncertainty.propagate import standard_error
from vertebra_kp.evaluation.uncertainty.shape import SURPRISING_FROM
from vertebra_kp.evaluation.uncertainty.store import Calibrated
from vertebra_kp.inference.batch import Prediction
from vertebra_kp.measures import Measurement, Spine, measure

SHIFT_FROM = 0.7  # logarithm: twice as plausible one level away
TRUSTED_FROM = 0.02  # share of good films that look as odd: below it a film's reading is marked


@dataclass(frozen=True)
class Reading:
    """One film's measures; ``intervals`` one per measurement, and ``regions`` ``[levels, 4, 2, 2]`` px² and
    ``share_as_odd`` of the good films, are None without a calibration. ``corrected`` corners were moved by the
    shape model: they have neither intervals nor regions, which are calibrated on what the network says.
    ``remarks`` are sentences of what to look at.
    """

    spine: Spine
    presence: np.ndarray
    measurements: list[Measurement]
    intervals: list[Interval | None]
    regions: np.ndarray | None = None
    share_as_odd: float | None = None
    corrected: bool = False
    remarks: tuple[str, ...] = ()

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
    correct_shape: bool = False,
) -> Reading:
    """Measure a predicted film; vertebrae that the network calls absent are not measured.

    With ``correct_shape`` corners are measured where heatmaps and the calibration's shape model agree.
    """
    predicted = prediction.points_xy_image
    if calibrated is not None and correct_shape:
        predicted, _ = calibrated.corrected(prediction)
    points = reported_points(predicted, prediction.presence)
    spine = Spine(schema, points, size, spacing_mm, anterior_side)
    measurements = measure(spine)
    remarks = _side_remarks(spine)
    if calibrated is None:
        return Reading(spine, prediction.presence, measurements, [None] * len(measurements), remarks=remarks)
    remarks += _shape_remarks(prediction, schema, calibrated)
    share_as_odd = calibrated.trust.p_value(calibrated.ood_score(prediction))
    if correct_shape:
        intervals: list[Interval | None] = [None] * len(measurements)
        return Reading(spine, prediction.presence, measurements, intervals, None, share_as_odd, True, remarks)
    calibration = calibrated.calibration
    covariances = widened(prediction.covariances)
    intervals = [
        None if m.value is None else calibration.interval(m, standard_error(m, points, covariances))
        for m in measurements
    ]
    regions = np.stack(
        [calibration.region(level, prediction.covariances[i]) for i, level in enumerate(schema.levels)]
    )
    return Reading(spine, prediction.presence, measurements, intervals, regions, share_as_odd, remarks=remarks)


def _side_remarks(spine: Spine) -> tuple[str, ...]:
    """The sacrum tells where the front is; without it nobody checks what was said."""
    levels = spine.schema.levels
    if spine.anterior_side is None:
        return ()
    if "S1" in levels and np.isfinite(spine.points_xy_image[levels.index("S1"), :2]).all():
        return ()
    return (f"That the patient looks to the {spine.anterior_side} was told and could not be checked.",)


def _shape_remarks(prediction: Prediction, schema: Schema, calibrated: Calibrated) -> tuple[str, ...]:
    """Corners that the others expect elsewhere, and what speaks for another level."""
    _, surprise = calibrated.corrected(prediction)
    with np.errstate(invalid="ignore"):
        odd = [f"{schema.levels[i]}.{CORNERS[j]}" for i, j in np.argwhere(surprise >= SURPRISING_FROM)]
    remarks = [f"Not where the other corners expect them: {', '.join(odd)}."] if odd else []
    points = reported_points(prediction.points_xy_image, prediction.presence)
    for where, evidence in zip(("higher", "lower"), calibrated.shapes.shift_evidence(points), strict=True):
        if evidence > SHIFT_FROM:
            remarks.append(f"The shape of the spine would suit better one level {where}: check the levels.")
    return tuple(remarks)
