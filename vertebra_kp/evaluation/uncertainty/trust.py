"""One number per film that says how little its reading is to be trusted.

Two signs, each compared with films that the network is known to work on: how little of the heatmaps' mass lies at
their peaks, and how implausible the spine is. Both are turned into the share of good films that look as odd, and
combined by Fisher's method. (The SD of the corners and the number of absent vertebrae were tried as further signs:
on drawn films they made the ranking worse.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import PRESENT_FROM
from vertebra_kp.evaluation.uncertainty.shape import ShapeModel

SIGNS = ("spread", "implausibility")


@dataclass(frozen=True)
class TrustModel:
    """``signs`` by name and ``distrusts``, ascending, of films that are read well."""

    signs: dict[str, tuple[float, ...]]
    distrusts: tuple[float, ...]

    def distrust(self, signs: dict[str, float]) -> float:
        """Fisher's statistic of both signs: 0 for the best film of all, the larger the odder."""
        return float(-2 * sum(np.log(_share_above(self.signs[name], signs[name])) for name in SIGNS))

    def share_as_odd(self, distrust: float) -> float:
        """Share of good films that look as odd, the film itself counted with them."""
        return _share_above(self.distrusts, distrust)

    def as_dict(self) -> dict[str, Any]:
        return {
            "signs": {name: list(values) for name, values in self.signs.items()},
            "distrusts": list(self.distrusts),
        }


def fit_trust(films: Sequence[dict[str, float]]) -> TrustModel:
    """From the signs of films that are read well."""
    signs = {name: tuple(sorted(round(_odd(film[name]), 4) for film in films)) for name in SIGNS}
    without_statistics = TrustModel(signs, ())
    distrusts = sorted(round(without_statistics.distrust(film), 4) for film in films)
    return TrustModel(signs, tuple(distrusts))


def trust_from_dict(content: dict[str, Any]) -> TrustModel:
    return TrustModel(
        {name: tuple(map(float, content["signs"][name])) for name in SIGNS},
        tuple(map(float, content["distrusts"])),
    )


def _odd(value: float) -> float:
    """A sign that cannot be had is the oddest of all."""
    return value if np.isfinite(value) else 1e6


def _share_above(ascending: tuple[float, ...], value: float) -> float:
    at_least = len(ascending) - np.searchsorted(ascending, round(_odd(value), 4))
    return float((1 + at_least) / (1 + len(ascending)))


def signs_of(
    points_xy: np.ndarray, scores: np.ndarray, presence: np.ndarray, shapes: ShapeModel
) -> dict[str, float]:
    """The signs of a prediction: ``points_xy`` ``[levels, 4, 2]`` px, ``scores`` ``[levels, 4]`` and ``presence``
    ``[levels]`` in 0..1. nan where too few vertebrae are there.

    ``implausibility`` is the logarithm of ``ShapeModel.implausibility``.
    """
    seen = (presence >= PRESENT_FROM)[:, None] & shapes.schema.exists
    implausibility = shapes.implausibility(np.where(seen[..., None], points_xy, np.nan))
    return {
        "spread": float(1 - scores[seen].mean()) if seen.any() else float("nan"),
        "implausibility": float(np.log(implausibility)),
    }
