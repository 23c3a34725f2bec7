"""Calibrated regions of corners and intervals of measures: made on some films, used on others.

A corner's region is the ellipse of its heatmap's covariance, grown by one factor; a measure's interval is its
propagated standard error between two factors. The factors are conformal quantiles of the errors that were made.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from vertebra_kp.core.anatomy import PRESENT_FROM, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.metrics import FilmResult
from vertebra_kp.evaluation.uncertainty.conformal import conformal_quantile, two_sided
from vertebra_kp.evaluation.uncertainty.propagate import standard_error
from vertebra_kp.measures import Measurement, Spine, measure

COVERAGE = 0.9
# A level or a measure of its own quantile needs so many patients; fewer share that of all.
OWN_QUANTILE_FROM = 50
# Fewer patients have too few extreme errors for a quantile on either side.
TWO_SIDES_FROM = 100
# Share of a measure's values that counts as large; they must be of patients enough for two sides, for what is rare
# and large is mostly measured too small. On phantoms 5 % held large slips in 87 %, 10 % in 73 %, none in 3 %.
LARGE_SHARE = 0.05
# Floors of a scale, in median standard errors; the last makes intervals of nearly one width. Choosing the
# narrowest costs coverage (2 points with 20 patients in a simulation, below one with 120): few take a fixed one.
FLOORS = (0.0, 0.5, 1.0, 2.0, 5.0)
FIXED_FLOOR = 2.0
CHOICE_FROM = 200
# Below it a covariance is the codec's rounding, not the network's uncertainty.
LEAST_SD_PX = 0.02


@dataclass(frozen=True)
class Interval:
    """``[low, high]`` around a measurement's value, promised to hold the truth in ``coverage`` of the films."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class ConformalScale:
    """From a measure's standard error to its interval: ``low`` and ``high`` times that error with its ``floor``,
    an error that all films share, added as variances are."""

    floor: float
    low: float
    high: float


@dataclass(frozen=True)
class MeasureScales:
    """A measure's conformal scale, and one of its own for values of ``large_from`` or more either side of 0.

    Rare large values are often measured too small: among all values their errors would not count (Mondrian
    conformal prediction: the promise holds for the ordinary and for the large values each).
    """

    ordinary: ConformalScale
    large: ConformalScale | None
    large_from: float


class MeasureError(NamedTuple):
    """A measurement with a value on predicted corners, the ``true`` value and the standard error, in its unit."""

    measurement: Measurement
    true: float
    standard_error: float

    @property
    def value(self) -> float:
        assert self.measurement.value is not None
        return self.measurement.value

    @property
    def error(self) -> float:
        return self.true - self.value


@dataclass(frozen=True)
class FilmErrors:
    """What a film with labels shows of a network's errors.

    ``distances`` ``[levels, 4]``: Mahalanobis distance of each true corner from the predicted one, nan where not
    labelled. ``measures``: what truth and prediction both give.
    """

    group: str
    distances: np.ndarray
    measures: list[MeasureError]


@dataclass(frozen=True)
class Calibration:
    """Factors by which the network's own uncertainty is scaled.

    ``corner_factor`` (inf: nothing can be promised, null in the file) and, by level, ``level_factors`` times a
    covariance's ellipse of one SD hold ``coverage`` of the corners. ``measures`` has the scales of each measure by
    name, where there were films enough. ``films`` of ``groups`` patients made them.
    """

    schema: str
    coverage: float
    films: int
    groups: int
    corner_factor: Annotated[float, BeforeValidator(lambda factor: float("inf") if factor is None else factor)]
    level_factors: dict[str, float]
    measures: dict[str, MeasureScales]

    def region(self, level: str, covariance: np.ndarray) -> np.ndarray:
        """``[2, 2]`` px²: the matrix whose unit ellipse about the corner is its region.

        nan where the films were too few to promise anything.
        """
        factor = self.level_factors.get(level, self.corner_factor)
        return factor**2 * widened(covariance) if np.isfinite(factor) else np.full(covariance.shape, np.nan)

    def true_covariances(self, covariances: np.ndarray) -> np.ndarray:
        """Covariances ``[..., 2, 2]`` px² of normal distributions as wide as the errors were at ``coverage``.

        As they are where too few films have shown the errors.
        """
        if not np.isfinite(self.corner_factor):
            return widened(covariances)
        of_normal = np.sqrt(-2 * np.log(1 - self.coverage))  # radius of that share of a normal distribution
        return (self.corner_factor / of_normal) ** 2 * widened(covariances)

    def interval(self, measurement: Measurement, standard_error: float) -> Interval | None:
        """The interval of a measured value; None where it has no value or too few films have shown its errors."""
        scales = self.measures.get(measurement.name)
        if measurement.value is None or scales is None:
            return None
        large = scales.large is not None and abs(measurement.value) >= scales.large_from
        scale = scales.large if scales.large is not None and large else scales.ordinary
        error = float(np.hypot(standard_error, scale.floor))
        ends = measurement.value + scale.low * error, measurement.value + scale.high * error
        if measurement.unsigned:
            ends = max(ends[0], 0.0), max(ends[1], 0.0)
        return Interval(*ends, self.coverage)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"corner_factor": self.corner_factor if np.isfinite(self.corner_factor) else None}


def widened(covariances: np.ndarray) -> np.ndarray:
    """Covariances ``[..., 2, 2]`` px² that are at least the codec's own noise."""
    return covariances.astype(np.float64) + LEAST_SD_PX**2 * np.eye(2)


def errors_of(result: FilmResult, schema: Schema) -> FilmErrors:
    """Errors of corners and of measures on a labelled film.

    A curve is the same measure whatever its end vertebrae; anything else must be at the same vertebrae.
    """
    assert result.covariances is not None  # of a prediction
    covariances = widened(result.covariances)
    labelled = result.labelled[..., None]
    true_points = np.where(labelled, result.true_points, np.nan)
    error = true_points - result.points
    inverse = np.linalg.inv(np.where(labelled[..., None], covariances, np.eye(2)))
    distances = np.sqrt(np.einsum("...a,...ab,...b->...", error, inverse, error))

    about = result.size, result.spacing_mm, result.anterior_side
    truth = {m.key: m.value for m in measure(Spine(schema, true_points, *about))}
    reported = reported_points(result.points, result.presence)
    pairs = []
    for predicted in measure(Spine(schema, reported, *about)):
        true = truth.get(predicted.key)
        if predicted.value is not None and true is not None:
            pairs.append(MeasureError(predicted, true, standard_error(predicted, reported, covariances)))
    return FilmErrors(result.group, distances, pairs)


def reported_points(points_xy: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Points ``[levels, 4, 2]``, nan for vertebrae that the network calls absent (``presence`` ``[levels]``)."""
    return np.where((presence >= PRESENT_FROM)[:, None, None], points_xy, np.nan)


def calibrate(films: Sequence[FilmErrors], schema: Schema, coverage: float = COVERAGE) -> Calibration:
    """Factors from the errors on films that neither trained nor selected the network."""
    if not 0 < coverage < 1:
        raise UserError(f"coverage {coverage}: must be between 0 and 1")
    groups = np.array([film.group for film in films])
    distances = np.stack([film.distances for film in films])  # [films, levels, 4]
    by_level: dict[str, float] = {}
    for i, level in enumerate(schema.levels):
        own = np.isfinite(distances[:, i]).any(axis=-1)
        factor = _quantile(distances[:, i], groups, coverage)
        if len(np.unique(groups[own])) >= OWN_QUANTILE_FROM and np.isfinite(factor):
            by_level[level] = factor
    found = defaultdict(list)
    for film in films:
        for pair in film.measures:
            found[pair.measurement.name].append((pair, film.group))
    scales = {name: scale for name, pairs in found.items() if (scale := _measure_scales(pairs, coverage))}
    of_all = _quantile(distances, groups, coverage)
    return Calibration(schema.name, coverage, len(films), len(np.unique(groups)), of_all, by_level, scales)


def _quantile(distances: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """Of ``[films, ...]``, nan left out."""
    measured = np.isfinite(distances)
    return conformal_quantile(distances[measured], groups[np.nonzero(measured)[0]], coverage)


def _measure_scales(pairs: Sequence[tuple[MeasureError, str]], coverage: float) -> MeasureScales | None:
    """Of one measure's errors, each with its patient."""
    sizes, errors, se = np.array([(abs(pair.value), pair.error, pair.standard_error) for pair, _ in pairs]).T
    groups = np.array([group for _, group in pairs])
    limit = float(np.quantile(sizes, 1 - LARGE_SHARE))
    large = sizes >= limit
    if len(np.unique(groups[large])) >= TWO_SIDES_FROM and not large.all():
        parts = [_scale(errors[part], se[part], groups[part], coverage) for part in (~large, large)]
        if parts[0] is not None and parts[1] is not None:
            return MeasureScales(parts[0], parts[1], limit)
    ordinary = _scale(errors, se, groups, coverage)
    return None if ordinary is None else MeasureScales(ordinary, None, 0.0)


def _scale(errors: np.ndarray, se: np.ndarray, groups: np.ndarray, coverage: float) -> ConformalScale | None:
    """The conformal scale of a measure; None where no coverage can be promised.

    Of many patients the one with the narrowest intervals on the average. With few patients the bounds lie on both
    sides at the same distance: one rank decides, not two extreme ones.
    """
    best: tuple[float, ConformalScale] | None = None
    patients = len(np.unique(groups))
    for share in FLOORS if patients >= CHOICE_FROM else (FIXED_FLOOR,):
        floor = share * float(np.median(se))
        scale = np.hypot(se, floor)
        if not (scale > 0).all():
            continue
        low, high = two_sided(errors / scale, groups, coverage)
        if patients < TWO_SIDES_FROM or not np.isfinite([low, high]).all():
            high = conformal_quantile(np.abs(errors) / scale, groups, coverage)
            low = -high
        width = (high - low) * float(scale.mean())
        if np.isfinite(width) and (best is None or width < best[0]):
            best = width, ConformalScale(floor, low, high)
    return None if best is None else best[1]
