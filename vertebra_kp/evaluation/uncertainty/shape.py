"""A statistical shape model of the spine: how the corners of a real spine lie together.

A spine is moved and scaled, not turned, onto the mean shape; there its corners follow one normal distribution.
That says how plausible a spine is, which corner does not fit to the others, and where the corners would lie if the
heatmaps' covariances and the shapes of real spines were both believed. Source: Cootes et al., Computer Vision and
Image Understanding 61, 1995 (shape models); Tipping and Bishop, J R Stat Soc B 61, 1999 (the noise term).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import TypedDict  # of Python 3.11 pydantic takes no other

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError

EXPLAINED = 0.98  # of the variance is kept as modes, the rest becomes noise of every coordinate
FEWEST_SPINES = 20
ALIGNMENTS = 5  # rounds of aligning all spines to their mean: the mean stands still long before
SURPRISING_FROM = 5.0  # SD from where the other corners expect one; a normal distribution has 4 in a million
PLACE = 3  # degrees of freedom of a place on the film: two shifts and a scale


class ShapeContent(TypedDict):
    """A ``ShapeModel`` in a file; ``schema`` is its name."""

    schema: str
    spines: int
    mean: list[list[float]]
    covariance: list[list[float]]


@dataclass(frozen=True)
class ShapeModel:
    """``mean`` ``[K, 2]`` of root-mean-square size 1 about the origin, ``covariance`` ``[2K, 2K]``.

    K are the channels of ``schema``. Points with nan are left out of everything.
    """

    schema: Schema
    mean: np.ndarray
    covariance: np.ndarray
    spines: int

    def implausibility(self, points_xy: np.ndarray) -> float:
        """Squared Mahalanobis distance of ``points_xy`` ``[levels, 4, 2]`` per degree of freedom.

        About 1 for a spine, nan with fewer than four corners.
        """
        visible, placed, _ = self._placed(self.schema.gather(points_xy))
        if visible.sum() < 4:
            return float("nan")
        rows = np.repeat(visible, 2)
        offset = (placed - self.mean)[visible].ravel()
        squared = offset @ np.linalg.solve(self.covariance[np.ix_(rows, rows)], offset)
        return float(squared / (rows.sum() - PLACE))

    def corrected(self, points_xy: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most probable corners ``[levels, 4, 2]``, and how far ``[levels, 4]`` each lies off the others.

        ``covariances`` ``[levels, 4, 2, 2]`` px² say how much each corner is believed. The second is the
        Mahalanobis distance of a corner from where all the others expect it, its own uncertainty included: a
        corner of the right vertebra has about 1.4. Points that are nan stay nan.
        """
        channels, beliefs = self.schema.gather(points_xy), self.schema.gather(covariances)
        visible, placed, scale = self._placed(channels)
        moved, surprise = np.full_like(placed, np.nan), np.full(len(placed), np.nan)
        if visible.sum() >= 4:
            rows = np.repeat(visible, 2)
            shapes = self.covariance[np.ix_(rows, rows)]
            uncertainty = np.zeros_like(shapes)  # of each corner for itself: blocks on the diagonal
            for i, block in enumerate(beliefs[visible] * scale**2):
                uncertainty[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
            offset = (placed - self.mean)[visible].ravel()
            precision = np.linalg.inv(shapes + uncertainty)
            weighted = precision @ offset
            moved[visible] = self.mean[visible] + (shapes @ weighted).reshape(-1, 2)
            for k, channel in enumerate(np.flatnonzero(visible)):
                own = slice(2 * k, 2 * k + 2)
                surprise[channel] = np.sqrt(weighted[own] @ np.linalg.solve(precision[own, own], weighted[own]))
        shift = (channels - placed / scale)[visible].mean(axis=0) if visible.any() else 0.0
        return self.schema.scatter(moved / scale + shift), self.schema.scatter(surprise)

    def shift_evidence(self, points_xy: np.ndarray) -> tuple[float, float]:
        """How much more plausible the vertebrae would be one level higher and one level lower, as logarithms.

        Positive speaks for a shift. Both sides judge the same vertebrae, those that have a place either way. nan
        with too few. Bodies change little from level to level: this is weak evidence, a reason to check.
        """
        rows = np.arange(len(points_xy))

        def implausibility(kept: np.ndarray, shift: int) -> float:
            moved = np.full_like(points_xy, np.nan, dtype=np.float64)
            moved[kept + shift] = np.where(self.schema.exists[kept + shift, :, None], points_xy[kept], np.nan)
            return self.implausibility(moved)

        higher = np.log(implausibility(rows[1:], 0) / implausibility(rows[1:], -1))
        lower = np.log(implausibility(rows[:-1], 0) / implausibility(rows[:-1], 1))
        return float(higher), float(lower)

    def _placed(self, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Which corners ``[K]`` are visible, all of them moved and scaled to the mean, and the scale."""
        visible = np.isfinite(channels).all(axis=1)
        if not visible.any():
            return visible, channels.astype(np.float64), 1.0
        mean, own = self.mean[visible].mean(axis=0), channels[visible].astype(np.float64).mean(axis=0)
        target, offset = self.mean[visible] - mean, channels[visible] - own
        size = (offset**2).sum()
        scale = float((target * offset).sum() / size) if size else 1.0
        # A spine that stands on its head would be scaled by a negative number, onto its feet.
        scale = abs(scale) or 1.0
        return visible, (channels - own) * scale + mean, scale

    def as_dict(self) -> ShapeContent:
        return {
            "schema": self.schema.name,
            "spines": self.spines,
            "mean": self.mean.round(6).tolist(),
            "covariance": self.covariance.round(9).tolist(),
        }


def fit_shapes(spines: Sequence[np.ndarray], schema: Schema) -> ShapeModel:
    """The model of labelled spines ``[levels, 4, 2]``; those with a corner missing are left out.

    Raises UserError for too few of them.
    """
    channels = np.array([schema.gather(spine) for spine in spines if np.isfinite(schema.gather(spine)).all()])
    if len(channels) < FEWEST_SPINES:
        raise UserError(
            f"a shape model of {schema.name} needs {FEWEST_SPINES} spines with every corner labelled, "
            f"there are {len(channels)}; give more training films"
        )
    shapes = np.stack([_unit(shape) for shape in channels.astype(np.float64)])
    mean = shapes.mean(axis=0)
    for _ in range(ALIGNMENTS):
        mean = _unit(mean)
        shapes *= (shapes * mean).sum(axis=(1, 2), keepdims=True) / (shapes**2).sum(axis=(1, 2), keepdims=True)
        mean = shapes.mean(axis=0)
    spread = (shapes - mean).reshape(len(shapes), -1)
    _, singular, modes = np.linalg.svd(spread, full_matrices=False)
    variance = singular**2 / (len(shapes) - 1)
    kept = int(np.searchsorted(np.cumsum(variance), EXPLAINED * variance.sum())) + 1
    # What the modes leave, spread over all coordinates: a new spine has some of it everywhere.
    noise = max(variance[kept:].sum() / max(spread.shape[1] - kept, 1), 1e-8)
    covariance = (modes[:kept].T * (variance[:kept] - noise).clip(0)) @ modes[:kept]
    return ShapeModel(schema, mean, covariance + noise * np.eye(spread.shape[1]), len(shapes))


def shape_model_from_dict(content: ShapeContent, schema: Schema) -> ShapeModel:
    """Raises UserError where the model is of another schema or has another size."""
    try:
        mean, covariance = np.array(content["mean"]), np.array(content["covariance"])
    except ValueError:
        raise UserError("the rows of the shape model differ in length; calibrate the network again") from None
    K = schema.num_channels
    if content["schema"] != schema.name or mean.shape != (K, 2) or covariance.shape != (2 * K, 2 * K):
        raise UserError(f"the shape model is of {content['schema']}, {schema.name} was asked for")
    return ShapeModel(schema, mean, covariance, content["spines"])


def _unit(shape: np.ndarray) -> np.ndarray:
    """About the origin, of root-mean-square size 1."""
    shape = shape - shape.mean(axis=0)
    return shape / np.sqrt((shape**2).sum(axis=1).mean())
