"""A predicted image interpreted as a clinician would: measures with intervals, regions of corners, trust."""

from dataclasses import dataclass, replace

import numpy as np

from vertebra_kp.core.anatomy import CORNERS, Schema, Side
from vertebra_kp.evaluation.uncertainty.calibration import Interval, reported_points, widened
from vertebra_kp.evaluation.uncertainty.propagate import standard_error
from vertebra_kp.evaluation.uncertainty.shape import SURPRISING_FROM
from vertebra_kp.evaluation.uncertainty.store import Calibrated
from vertebra_kp.inference.doubts import MEANINGS, UNMEASURED, Doubt
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.measures import Measurement, Spine, measure

SHIFT_FROM = 0.7  # logarithm: twice as plausible one level away
TRUSTED_FROM = 0.02  # conformal p-value: below it an image counts as out of distribution


@dataclass(frozen=True)
class Interpretation:
    """One image's measures, with an interval for each.

    ``regions`` ``[levels, 4, 2, 2]`` px² of the corners. ``p_value`` is conformal, of the out-of-distribution
    score: the share of images that the network works on whose score is as high. Intervals, regions and p-value
    are None without a calibration. ``corrected`` corners were moved by the shape model: they have neither
    intervals nor regions, which are calibrated on the network's own corners. ``remarks`` are sentences that say
    what to check; ``doubts`` are those of ``inference.doubts``.
    """

    spine: Spine
    presence: np.ndarray
    measurements: list[Measurement]
    intervals: list[Interval | None]
    regions: np.ndarray | None = None
    p_value: float | None = None
    corrected: bool = False
    remarks: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    @property
    def trusted(self) -> bool | None:
        """None where nothing speaks against it and no calibration speaks for it."""
        if self.doubts:
            return False
        return None if self.p_value is None else self.p_value >= TRUSTED_FROM

    @property
    def measured(self) -> bool:
        """False where the network refused the image as a whole."""
        return UNMEASURED.isdisjoint(self.doubts)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the doubts mean."""
        return tuple(MEANINGS[doubt] for doubt in self.doubts)

    @property
    def visible(self) -> np.ndarray:
        """``[levels]`` bool: the vertebrae of which every corner was found."""
        return (np.isfinite(self.spine.points_xy_image).all(axis=-1) | ~self.spine.schema.exists).all(axis=1)


def interpret(
    prediction: Prediction,
    schema: Schema,
    size: tuple[int, int],
    *,
    spacing_mm: float | None = None,
    anterior_side: Side | None = None,
    calibrated: Calibrated | None = None,
    correct_shape: bool = False,
) -> Interpretation:
    """Measure a predicted image of ``size`` (height, width); vertebrae that the network calls absent are left out.

    With ``correct_shape`` corners are measured where heatmaps and the calibration's shape model agree.
    """
    predicted = prediction.points_xy_image
    if calibrated is not None and correct_shape:
        predicted, _ = calibrated.corrected(prediction)
    points = reported_points(predicted, prediction.presence)
    if not UNMEASURED.isdisjoint(prediction.doubts):
        points = np.full_like(points, np.nan)
    spine = Spine(schema, points, size, spacing_mm, anterior_side)
    measured, remarks = measure(spine), _side_remarks(spine)
    without = Interpretation(
        spine, prediction.presence, measured, [None] * len(measured), remarks=remarks, doubts=prediction.doubts
    )
    if calibrated is None:
        return without
    remarks += _shape_remarks(prediction, schema, calibrated)
    p_value = calibrated.trust.p_value(calibrated.ood_score(prediction))
    found = replace(without, p_value=p_value, corrected=correct_shape, remarks=remarks)
    if correct_shape:
        return found
    calibration, covariances = calibrated.calibration, widened(prediction.covariances)
    intervals = [
        None if m.value is None else calibration.interval(m, standard_error(m, points, covariances))
        for m in measured
    ]
    by_level = zip(schema.levels, prediction.covariances, strict=True)
    regions = np.stack([calibration.region(level, covariance) for level, covariance in by_level])
    return replace(found, intervals=intervals, regions=regions)


def _side_remarks(spine: Spine) -> tuple[str, ...]:
    """The sacrum shows where the front is; without it nobody can check the given side."""
    levels = spine.schema.levels
    checked = "S1" in levels and np.isfinite(spine.points_xy_image[levels.index("S1"), :2]).all()
    if spine.anterior_side is None or checked:
        return ()
    return (f"The anterior side was given as {spine.anterior_side} and could not be checked without the sacrum.",)


def _shape_remarks(prediction: Prediction, schema: Schema, calibrated: Calibrated) -> tuple[str, ...]:
    """Corners that the others expect elsewhere, and evidence for another level."""
    _, surprise = calibrated.corrected(prediction)
    with np.errstate(invalid="ignore"):
        odd = [f"{schema.levels[i]}.{CORNERS[j]}" for i, j in np.argwhere(surprise >= SURPRISING_FROM)]
    remarks = [f"Not where the other corners expect them: {', '.join(odd)}."] if odd else []
    points = reported_points(prediction.points_xy_image, prediction.presence)
    for where, evidence in zip(("higher", "lower"), calibrated.shapes.shift_evidence(points), strict=True):
        if evidence > SHIFT_FROM:
            remarks.append(f"The shape of the spine fits better one level {where}: check the levels.")
    return tuple(remarks)
