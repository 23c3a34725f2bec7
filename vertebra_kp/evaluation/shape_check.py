"""What the shape of spines adds to a network's corners, on films with labels: correction and flags."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vertebra_kp.evaluation.runner import Evaluated
from vertebra_kp.evaluation.schema import ShapeFigures
from vertebra_kp.evaluation.uncertainty.shape import SURPRISING_FROM
from vertebra_kp.evaluation.uncertainty.store import Calibrated


def shape_figures(evaluated: Sequence[Evaluated], calibrated: Calibrated) -> ShapeFigures:
    """Errors without and with the correction, and of all corners flagged by ``SURPRISING_FROM`` SD or more."""
    labelled = np.stack([item.labelled for item in evaluated])
    corrected, surprises = zip(*(calibrated.corrected(item.prediction) for item in evaluated), strict=True)
    pairs = zip(evaluated, corrected, strict=True)
    before = np.stack([item.errors_px for item in evaluated])[labelled]
    after = np.stack([replace(item, points=points).errors_px for item, points in pairs])[labelled]
    flagged = np.stack(surprises)[labelled] >= SURPRISING_FROM
    return {
        "mre_px": [float(before.mean()), float(after.mean())],
        "median_px": [float(np.median(before)), float(np.median(after))],
        "flagged": int(flagged.sum()),
        "flagged_median_px": float(np.median(before[flagged])) if flagged.any() else None,
        "other_median_px": float(np.median(before[~flagged])) if not flagged.all() else None,
    }
