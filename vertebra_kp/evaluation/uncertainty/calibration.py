"""Calibrated regions of corners and intervals of measures: made on some films, used on others.

A corner's region is the ellipse of its heatmap's covariance, grown by one factor; a measure's interval is its
propagated standard error between two factors. The factors are conformal quantiles of the errors that were made.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import PRESENT_FROM, SCHEMAS, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.metrics import FilmResult
from vertebra_kp.evaluation.uncertainty.conformal import conformal_quantile, two_sided
from vertebra_kp.evaluation.uncertainty.propagate import standard_error
from vertebra_kp.measures import Measurement, Spine, measure

COVERAGE = 0.9
# A level or a measure of its own quantile needs so many patients; fewer share that of all.
OWN_QUANTILE_FROM = 50
# Fewer patients have too few extreme errors to tell those to either side apart.
TWO_SIDES_FROM = 100
# Share of a measure's values that counts as large; they must be of patients enough for two sides, for what is rare
# and large is mostly read too small. On drawn slips 5 % held large ones in 87 %, 10 % in 73 %, none in 3 %.
LARGE_SHARE = 0.05
# Floors of a scale, in median standard errors; the last makes intervals of nearly one width. Choosing the
# narrowest costs coverage (2 points with 20 patients in a simulation, below one with 120): few take a fixed one.
FLOORS = (0.0, 0.5, 1.0, 2.0, 5.0)
FIXED_FLOOR = 2.0
CHOICE_FROM = 200
# Below it a covariance is the codec's rounding, not the network's doubt.
LEAST_SD_PX = 0.02


@dataclass(frozen=True)
class Interval:
    """``[low, high]`` around a measurement's value, promised to hold the truth in ``coverage`` of the films."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Stretch:
    """From a measure's standard error to its interval: ``low`` and ``high`` times the scale.

    The scale is the standard error with ``floor``, an error that all films share, added as variances are.
    """

    floor: float
    low: float
    high: float

    def scale(self, standard_error: float) -> float:
        return float(np.hypot(standard_error, self.floor))


@dataclass(frozen=True)
class Stretches:
    """A measure's stretch, and one of its own for values of ``large_from`` or more either side of 0.

    Rare large values are often read too small: among all values their errors would not count (Mondrian conformal
    prediction: the promise holds for the ordinary and for the large readings each).
    """

    ordinary: Stretch
    large: Stretch | None = None
    large_from: float = 0.0

    def of(self, value: float) -> Stretch:
        return self.large if self.large is not None and abs(value) >= self.large_from else self.ordinary


@dataclass(frozen=True)
class FilmErrors:
    """What a film with labels shows of a network's errors.

    ``distances`` ``[levels, 4]``: Mahalanobis distance of each true corner from the predicted one, nan where not
    labelled. ``measures``: (predicted, true value, standard error) of what truth and prediction both give.
    """

    group: str
    distances: np.ndarray
    measures: list[tuple[Measurement, float, float]]


@dataclass(frozen=True)
class Calibration:
    """Factors by which the network's own doubt is stretched.

    ``corner_factor`` and, by level, ``level_factors`` times a covariance's ellipse of one SD hold ``coverage`` of
    the corners. ``measures`` has the stretches of each measure by name, where there were films enough. ``films``
    of ``groups`` patients made them.
    """

    schema: str
    coverage: float
    films: int
    groups: int
    corner_factor: float
    level_factors: dict[str, float]
    measures: dict[str, Stretches]

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
        stretches = self.measures.get(measurement.name)
        if measurement.value is None or stretches is None:
            return None
        stretch = stretches.of(measurement.value)
        scale = stretch.scale(standard_error)
        ends = measurement.value + stretch.low * scale, measurement.value + stretch.high * scale
        if measurement.unsigned:
            ends = max(ends[0], 0.0), max(ends[1], 0.0)
        return Interval(*ends, self.coverage)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; a factor that nothing can be promised with is None."""
        content = asdict(self)
        return content | {"corner_factor": self.corner_factor if np.isfinite(self.corner_factor) else None}


def calibration_from_dict(content: dict[str, Any]) -> Calibration:
    """Raises UserError where something is missing."""
    try:
        corner = content["corner_factor"]
        return Calibration(
            str(content["schema"]),
            float(content["coverage"]),
            int(content["films"]),
            int(content["groups"]),
            float("inf") if corner is None else float(corner),
            {level: float(factor) for level, factor in content["level_factors"].items()},
            {name: _stretches_from_dict(told) for name, told in content["measures"].items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        remedy = "calibrate the network anew"
        raise UserError(f"calibration: {error!r} is missing or wrong; {remedy}") from None


def _stretches_from_dict(content: dict[str, Any]) -> Stretches:
    ordinary, large = (
        None if told is None else Stretch(**told) for told in (content["ordinary"], content["large"])
    )
    if ordinary is None:
        raise ValueError("ordinary")
    return Stretches(ordinary, large, float(content["large_from"]))


def widened(covariances: np.ndarray) -> np.ndarray:
    """Covariances ``[..., 2, 2]`` px² that are at least the codec's own noise."""
    return covariances.astype(np.float64) + LEAST_SD_PX**2 * np.eye(2)


def errors_of(result: FilmResult, schema: Schema) -> FilmErrors:
    """Errors of corners and of measures on a labelled film.

    A curve is the same measure whatever its end vertebrae; anything else must be at the same vertebrae.
    """
    assert result.covariances is not None  # of a prediction
    covariances = widened(result.covariances)
    labelled = result.labelled
    error = np.where(labelled[..., None], result.true_points - result.points, np.nan)
    inverse = np.linalg.inv(np.where(labelled[..., None, None], covariances, np.eye(2)))
    distances = np.sqrt(np.einsum("...a,...ab,...b->...", error, inverse, error))

    true_points = np.where(labelled[..., None], result.true_points, np.nan)
    about = result.size, result.spacing_mm, result.anterior_side
    truth = {m.key: m.value for m in measure(Spine(schema, true_points, *about))}
    seen = seen_points(result.points, result.presence)
    pairs = []
    for predicted in measure(Spine(schema, seen, *about)):
        true = truth.get(predicted.key)
        if predicted.value is not None and true is not None:
            pairs.append((predicted, true, standard_error(predicted, seen, covariances)))
    return FilmErrors(result.group, distances, pairs)


def seen_points(points_xy: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Points ``[levels, 4, 2]``, nan for vertebrae that the network calls absent (``presence`` ``[levels]``)."""
    return np.where((presence >= PRESENT_FROM)[:, None, None], points_xy, np.nan)


def calibrate(films: Sequence[FilmErrors], schema: Schema, coverage: float = COVERAGE) -> Calibration:
    """Factors from the errors on films that neither trained nor selected the network."""
    if not 0 < coverage < 1:
        raise UserError(f"coverage {coverage}: must be between 0 and 1")
    groups = np.array([film.group for film in films])
    distances = np.stack([film.distances for film in films])  # [films, levels, 4]
    by_level = {}
    for i, level in enumerate(schema.levels):
        of_film = np.nonzero(np.isfinite(distances[:, i]))[0]
        if len(np.unique(groups[of_film])) >= OWN_QUANTILE_FROM:
            factor = _quantile(distances[:, i], groups, coverage)
            by_level |= {level: factor} if np.isfinite(factor) else {}
    found = defaultdict(list)
    for film in films:
        for predicted, true, se in film.measures:
            found[predicted.name].append((abs(predicted.value), true - predicted.value, se, film.group))
    stretches = {name: _stretches(*map(np.array, zip(*of, strict=True)), coverage) for name, of in found.items()}
    return Calibration(
        schema.name,
        coverage,
        len(films),
        len(np.unique(groups)),
        _quantile(distances, groups, coverage),
        by_level,
        {name: stretch for name, stretch in stretches.items() if stretch is not None},
    )


def _quantile(distances: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """Of ``[films, ...]``, nan left out."""
    measured = np.isfinite(distances)
    return conformal_quantile(distances[measured], groups[np.nonzero(measured)[0]], coverage)


def _stretches(
    sizes: np.ndarray, errors: np.ndarray, se: np.ndarray, groups: np.ndarray, coverage: float
) -> Stretches | None:
    """``sizes`` are the predicted values without their sign."""
    limit = float(np.quantile(sizes, 1 - LARGE_SHARE))
    large = sizes >= limit
    if len(np.unique(groups[large])) >= TWO_SIDES_FROM and not large.all():
        parts = [_stretch(errors[part], se[part], groups[part], coverage) for part in (~large, large)]
        if parts[0] is not None and parts[1] is not None:
            return Stretches(parts[0], parts[1], limit)
    ordinary = _stretch(errors, se, groups, coverage)
    return None if ordinary is None else Stretches(ordinary)


def _stretch(errors: np.ndarray, se: np.ndarray, groups: np.ndarray, coverage: float) -> Stretch | None:
    """The stretch of a measure; None where no coverage can be promised.

    Of many patients the one with the narrowest intervals on the average. With few patients the bounds lie on both
    sides at the same distance: one rank decides, not two extreme ones.
    """
    best: tuple[float, Stretch] | None = None
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
            best = width, Stretch(floor, low, high)
    return None if best is None else best[1]


def check_schema(calibration: Calibration, schema: Schema) -> None:
    """Raises UserError where the calibration is of other corners."""
    if calibration.schema != schema.name:
        raise UserError(
            f"the calibration is of {calibration.schema}, the network predicts {schema.name}; "
            f"known schemas: {', '.join(SCHEMAS)}"
        )
