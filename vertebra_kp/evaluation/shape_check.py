"""What the shape of spines adds to a network's corners, on films with labels: correction, flags, level shifts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vertebra_kp.evaluation.runner import Evaluated
from vertebra_kp.evaluation.schema import ShapeFigures
from vertebra_kp.evaluation.uncertainty.shape import SURPRISING_FROM
from vertebra_kp.evaluation.uncertainty.store import Calibrated


def correct_shape(evaluated: Sequence[Evaluated], calibrated: Calibrated) -> list[Evaluated]:
    """The same films with corners that heatmaps and shapes agree on."""
    corrected = []
    for item in evaluated:
        points, _ = calibrated.corrected(item.prediction)
        prediction = replace(item.prediction, points_xy_image=points)
        corrected.append(replace(item, points=points, prediction=prediction))
    return corrected


def shape_figures(evaluated: Sequence[Evaluated], calibrated: Calibrated) -> ShapeFigures:
    """Errors without and with the correction, and of all corners flagged by ``SURPRISING_FROM`` SD or more."""
    before = np.concatenate([_errors(item) for item in evaluated])
    after = np.concatenate([_errors(item) for item in correct_shape(evaluated, calibrated)])
    surprises = [calibrated.corrected(item.prediction)[1] for item in evaluated]
    surprise = np.concatenate([s[item.labelled] for s, item in zip(surprises, evaluated, strict=True)])
    flagged = surprise >= SURPRISING_FROM
    return {
        "mre_px": [float(before.mean()), float(after.mean())],
        "median_px": [float(np.median(before)), float(np.median(after))],
        "flagged": int(flagged.sum()),
        "flagged_median_px": float(np.median(before[flagged])) if flagged.any() else None,
        "other_median_px": float(np.median(before[~flagged])) if not flagged.all() else None,
    }


def _errors(item: Evaluated) -> np.ndarray:
    return item.errors_px[item.labelled]
