"""An out-of-distribution score per film: how far it is from the films that the network is known to work on.

Two signs, each compared with those good films: how little of the heatmaps' mass lies at their peaks, and how
implausible the spine is. Both are turned into conformal p-values and combined by Fisher's method. (The SD of the
corners and the number of absent vertebrae were tried as further signs: on synthetic images they made the ranking
worse.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import PRESENT_FROM
from vertebra_kp.evaluation.uncertainty.shape import ShapeModel
from vertebra_kp.inference.prediction import Prediction

SIGNS = ("spread", "implausibility")


@dataclass(frozen=True)
class TrustModel:
    """``signs`` by name, and scores (``distrusts``, the file's key), ascending, of films measured well."""

    signs: dict[str, tuple[float, ...]]
    distrusts: tuple[float, ...]

    def score(self, signs: Mapping[str, float]) -> float:
        """The out-of-distribution score, Fisher's statistic of both signs: 0 for the best film of all."""
        return float(-2 * sum(np.log(_share_above(self.signs[name], signs[name])) for name in SIGNS))

    def p_value(self, score: float) -> float:
        """Conformal p-value: share of good films with this score or a higher one, the film itself counted."""
        return _share_above(self.distrusts, score)


def fit_trust(films: Sequence[Mapping[str, float]]) -> TrustModel:
    """From the signs of films that are measured well."""
    signs = {name: tuple(sorted(round(_finite(film[name]), 4) for film in films)) for name in SIGNS}
    without_statistics = TrustModel(signs, ())
    return TrustModel(signs, tuple(sorted(round(without_statistics.score(film), 4) for film in films)))


def _finite(value: float) -> float:
    """A sign that cannot be computed counts as the largest of all."""
    return value if np.isfinite(value) else 1e6


def _share_above(ascending: tuple[float, ...], value: float) -> float:
    at_least = len(ascending) - np.searchsorted(ascending, round(_finite(value), 4))
    return float((1 + at_least) / (1 + len(ascending)))


def signs_of(prediction: Prediction, shapes: ShapeModel) -> dict[str, float]:
    """The signs of a prediction, nan where too few vertebrae are there.

    ``implausibility`` is the logarithm of ``ShapeModel.implausibility``.
    """
    reported = (prediction.presence >= PRESENT_FROM)[:, None] & shapes.schema.exists
    implausibility = shapes.implausibility(np.where(reported[..., None], prediction.points_xy_image, np.nan))
    return {
        "spread": float(1 - prediction.scores[reported].mean()) if reported.any() else float("nan"),
        "implausibility": float(np.log(implausibility)),
    }
