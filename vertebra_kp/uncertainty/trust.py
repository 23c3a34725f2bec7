"""One number per film that says how little its reading is to be trusted.

Four signs, each compared with films on which the network is known to work: the doubt of its heatmaps, how little
of their mass lies at the peak, how implausible the spine is, and how many vertebrae are missing or half there. A
film is as suspicious as its worst sign.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vertebra_kp.uncertainty.shape import ShapeModel

SIGNS = ("doubt", "spread", "implausibility", "absence")
LEAST_SPREAD = 0.05  # of a sign over good films: a sign that never changes there must not decide alone
NORMAL_MAD = 1.4826  # SD of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class TrustModel:
    """Median and robust SD of each sign, over films that are read well."""

    middle: dict[str, float]
    sd: dict[str, float]

    def distrust(self, signs: dict[str, float]) -> float:
        """How many SD the worst sign lies above that of good films; a sign that cannot be had counts as the worst.

        About 1 for a usual film; 5 and above is seldom.
        """
        far = [(signs[name] - self.middle[name]) / self.sd[name] for name in SIGNS if np.isfinite(signs[name])]
        return float(max(far)) if len(far) == len(SIGNS) else float("inf")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_trust(films: Sequence[dict[str, float]]) -> TrustModel:
    """From the signs of films that are read well."""
    middle, sd = {}, {}
    for name in SIGNS:
        values = np.array([signs[name] for signs in films])
        values = values[np.isfinite(values)]
        middle[name] = float(np.median(values)) if values.size else 0.0
        spread = NORMAL_MAD * float(np.median(np.abs(values - middle[name]))) if values.size else 0.0
        sd[name] = max(spread, LEAST_SPREAD)
    return TrustModel(middle, sd)


def signs_of(
    points_xy: np.ndarray,
    covariances: np.ndarray,
    scores: np.ndarray,
    presence: np.ndarray,
    shapes: ShapeModel,
) -> dict[str, float]:
    """The four signs of a prediction: ``points_xy`` ``[levels, 4, 2]`` px, ``covariances`` ``[levels, 4, 2, 2]``
    px², ``scores`` ``[levels, 4]`` and ``presence`` ``[levels]`` in 0..1.

    ``doubt`` and ``implausibility`` are logarithms: of the SD of a corner over the spine's size, and of
    ``ShapeModel.implausibility``; nan where no vertebra is there.
    """
    exists = shapes.schema.exists
    seen = (presence >= 0.5)[:, None] & exists
    absence = float(np.minimum(1 - presence, 1).sum())
    if seen.sum() < 4:
        return {"doubt": np.nan, "spread": np.nan, "implausibility": np.nan, "absence": absence}
    corners = points_xy[seen]
    size = np.sqrt(((corners - corners.mean(axis=0)) ** 2).sum(axis=1).mean())
    sd = np.sqrt(np.trace(covariances[seen], axis1=-2, axis2=-1).clip(1e-6))
    believed = np.where(seen[..., None], points_xy, np.nan)
    return {
        "doubt": float(np.log(np.median(sd) / size)),
        "spread": float(1 - scores[seen].mean()),
        "implausibility": float(np.log(shapes.implausibility(believed))),
        "absence": absence,
    }
