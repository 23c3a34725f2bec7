"""Figures of an evaluation: landmark errors, presence, level shifts, Cobb angles, with bootstrap intervals.

Everything is measured in the frame of the original film, on LABELLED corners only.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from vertebra_kp.core.anatomy import CORNERS, PRESENT_FROM, Schema, Side, State, presence_target
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.schema import Ends, Figure, FilmFigures, PartFigures, Rates, Summary
from vertebra_kp.measures import AASCE_VERTEBRAE, cobb_aasce

CONFIDENCE = 0.95
THRESHOLDS_MM: tuple[float, ...] = (2, 2.5, 3, 4)
THRESHOLDS_PX: tuple[float, ...] = (2, 5, 10, 20, 50)
SHIFTED_ABOVE = 0.5  # vertebra steps: beyond half a step the neighbouring level is the nearer one
RESAMPLES_AT_ONCE = 50  # of a median: keeps the working arrays small enough for the processor's cache


@dataclass(frozen=True)
class FilmResult:
    """One film's truth and prediction, in continuous coordinates of the original image.

    ``true_points`` ``[levels, 4, 2]`` pixels, nan where ``true_states`` ``[levels, 4]`` is not LABELLED;
    ``points`` ``[levels, 4, 2]`` predicted, nan where the schema has no corner; ``presence`` ``[levels]``
    probabilities; ``size`` (height, width); ``spacing_mm`` of a pixel, None when unknown; ``group`` the
    patient. ``covariances`` ``[levels, 4, 2, 2]`` px² of the predicted corners and ``anterior_side`` of a lateral
    film are asked for by what measures spines.
    """

    id: str
    group: str
    size: tuple[int, int]
    spacing_mm: float | None
    true_points: np.ndarray
    true_states: np.ndarray
    points: np.ndarray
    presence: np.ndarray
    covariances: np.ndarray | None = None
    anterior_side: Side | None = None

    @property
    def labelled(self) -> np.ndarray:
        """``[levels, 4]`` bool: the corners that count."""
        return self.true_states == State.LABELLED

    @property
    def errors_px(self) -> np.ndarray:
        """Radial errors ``[levels, 4]`` in pixels, nan where not labelled."""
        return np.where(self.labelled, np.linalg.norm(self.points - self.true_points, axis=-1), np.nan)


def film_errors(result: FilmResult) -> FilmFigures:
    """One film's figures, for a row of a table or the search for the worst film."""
    errors = result.errors_px[result.labelled]
    mre_px = float(errors.mean()) if errors.size else None
    shift = level_shift(result)
    # The AASCE angles are of a fully labelled whole spine; T1..L5 is the only schema with so many levels.
    whole = len(result.labelled) == AASCE_VERTEBRAE and result.labelled.all()
    return {
        "id": result.id,
        "group": result.group,
        "corners": errors.size,
        "mre_px": mre_px,
        "max_px": float(errors.max()) if errors.size else None,
        "mre_percent_diagonal": None if mre_px is None else 100 * mre_px / float(np.hypot(*result.size)),
        "mre_mm": None if mre_px is None or result.spacing_mm is None else mre_px * result.spacing_mm,
        "shift_levels": shift,
        "shifted": None if shift is None else abs(shift) > SHIFTED_ABOVE,
        "cobb_true_deg": cobb_aasce(result.true_points, result.size[0]).tolist() if whole else None,
        "cobb_predicted_deg": cobb_aasce(result.points, result.size[0]).tolist() if whole else None,
    }


def level_shift(result: FilmResult) -> float | None:
    """How many levels the prediction as a whole sits too low (+) or too high (-): 0 right, 1 one level off.

    The median over levels of the centre error along the spine, over the median vertebra step. The spine's
    direction is that of the polyline through the true centres, and a level's centre is the mean of its
    labelled corners, true and predicted alike. None with fewer than two distinct labelled levels.
    """
    levels = np.flatnonzero(result.labelled.any(axis=-1))
    if len(levels) < 2:
        return None
    labelled = result.labelled[levels, :, None]
    centres = result.true_points[levels].mean(axis=1, where=labelled)
    error = result.points[levels].mean(axis=1, where=labelled) - centres
    # Levels without labels leave gaps: a place on the polyline is a level's number, not its rank.
    step = np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1) / np.diff(levels))
    tangent = np.gradient(centres, levels, axis=0)
    length = np.linalg.norm(tangent, axis=1)
    directed = length > 0  # labels may hold one vertebra twice
    if step == 0 or not directed.any():
        return None
    along = (error * tangent).sum(axis=1)[directed] / length[directed]
    return float(np.median(along) / step)


def summarise(results: Sequence[FilmResult], schema: Schema, *, bootstrap: int = 1000) -> Summary:
    """All figures of an evaluation, ready for JSON: see ``Summary`` for what each one is.

    Intervals come from ``bootstrap`` resamples of groups (patients); None with fewer than two groups or
    ``bootstrap`` 0. BCa for means and rates; percentile for medians, as the jackknife inside BCa is not consistent
    for them (Efron and Tibshirani 1993, section 11.6). A rate of exactly 0 or 1 gets an interval without width:
    resampling cannot show what the sample does not have.

    Raises ValueError when ``results`` is empty or an array's shape is not the schema's, UserError when a labelled
    corner, its prediction or a presence is not finite.
    """
    _check(results, schema)
    films = [film_errors(result) for result in results]
    sample = GroupedSample([result.group for result in results], bootstrap)

    errors_px = np.stack([result.errors_px for result in results])  # [films, levels, 4]
    film, level, corner = np.nonzero(~np.isnan(errors_px))
    px = errors_px[film, level, corner]
    percent = 100 * px / np.array([np.hypot(*result.size) for result in results])[film]
    spacing = np.array([result.spacing_mm for result in results], dtype=float)[film]  # nan for None
    measured = ~np.isnan(spacing)
    mm, mm_film = (px * spacing)[measured], film[measured]

    truth = np.stack([presence_target(result.true_states) for result in results])  # [films, levels]
    called = np.stack([result.presence for result in results]) >= PRESENT_FROM
    true_positive = (truth == 1) & called
    called_film = np.nonzero(called & ~np.isnan(truth))
    present_film = np.nonzero(truth == 1)

    shifted = {i: row["shifted"] for i, row in enumerate(films) if row["shifted"] is not None}

    estimates: dict[str, tuple[object, object]] = {
        "mre_px": sample.mean(px, film),
        "median_px": sample.median(px, film),
        "mre_percent_diagonal": sample.mean(percent, film),
        "median_percent_diagonal": sample.median(percent, film),
        "mre_mm": sample.mean(mm, mm_film),
        "median_mm": sample.median(mm, mm_film),
        "sdr_mm": _sdr(sample, mm, mm_film, THRESHOLDS_MM),
        "sdr_px": _sdr(sample, px, film, THRESHOLDS_PX),
        "level_shift_rate": sample.mean(list(shifted.values()), list(shifted)),
        "presence_precision": sample.mean(true_positive[called_film], called_film[0]),
        "presence_recall": sample.mean(true_positive[present_film], present_film[0]),
        **_cobb_estimates(sample, films),
    }
    summary: dict[str, object] = {"films": len(results), "corners": len(px), "presence_threshold": PRESENT_FROM}
    for name, (value, interval) in estimates.items():
        summary |= {name: value, f"{name}_ci95": interval}
    summary["shifted_films"] = [films[i]["id"] for i, is_shifted in shifted.items() if is_shifted]
    summary["cobb_films"] = sum(row["cobb_true_deg"] is not None for row in films)

    def part(chosen: np.ndarray) -> PartFigures:
        return {
            "mre_px": float(px[chosen].mean()) if chosen.any() else None,
            "median_px": float(np.median(px[chosen])) if chosen.any() else None,
            "sdr_mm": _rates((px * spacing)[chosen & measured], THRESHOLDS_MM),
            "sdr_px": _rates(px[chosen], THRESHOLDS_PX),
        }

    summary["per_level"] = {name: part(level == i) for i, name in enumerate(schema.levels)}
    channels = zip(schema.channel_names, schema.channels, strict=True)
    summary["per_corner"] = {name: part((level == i) & (corner == j)) for name, (i, j) in channels}
    return cast(Summary, summary)  # most keys are made from names: a test checks that they are those of Summary


def _rates(errors: np.ndarray, thresholds: tuple[float, ...]) -> Rates:
    """Percent of errors within each threshold; None without errors."""
    return {f"{t:g}": float(100 * (errors <= t).mean()) for t in thresholds} if errors.size else None


class GroupedSample:
    """Means and medians over the films of a sample; intervals from resampling whole groups of films."""

    def __init__(self, groups: Sequence[str] | np.ndarray, resamples: int):
        _, self.group_of_film = np.unique(groups, return_inverse=True)
        self.resamples = resamples

    def mean(self, values: ArrayLike, films: ArrayLike) -> tuple[Figure, Ends]:
        """Mean of ``values`` ``[N]``, the i-th of which comes from film ``films[i]``, and its interval."""
        values, films = np.asarray(values, dtype=np.float64), np.asarray(films, dtype=np.intp)
        if not values.size:
            return None, None
        names, groups = np.unique(self.group_of_film[films], return_inverse=True)
        if not self.resamples or len(names) < 2:
            return float(values.mean()), None
        from scipy import stats  # here: it takes half a second

        # BCa of sum(sums) / sum(counts) when the groups behind them are resampled.
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            result = stats.bootstrap(
                (np.bincount(groups, values), np.bincount(groups)),
                lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
                n_resamples=self.resamples,
                paired=True,
                vectorized=True,
                confidence_level=CONFIDENCE,
                method="BCa",
                random_state=np.random.default_rng(0),
            )
        interval = np.array(result.confidence_interval)
        if not np.isfinite(interval).all():  # every resample is the same: BCa has no skewness to correct
            return float(values.mean()), _percentile_interval(result.bootstrap_distribution)
        return float(values.mean()), interval.tolist()

    def median(self, values: np.ndarray, films: np.ndarray) -> tuple[Figure, Ends]:
        """As ``mean``; the interval is a percentile one."""
        if not values.size:
            return None, None
        order = values.argsort()
        names, groups = np.unique(self.group_of_film[films], return_inverse=True)
        if not self.resamples or len(names) < 2:
            return float(np.median(values)), None
        medians = self._resampled_medians(values[order], groups[order], len(names))
        return float(np.median(values)), _percentile_interval(medians)

    def _resampled_medians(self, ascending: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
        """Medians ``[resamples]``: a group counts its values as often as it was sampled."""
        rng = np.random.default_rng(0)
        medians = []
        for start in range(0, self.resamples, RESAMPLES_AT_ONCE):
            size = min(RESAMPLES_AT_ONCE, self.resamples - start)
            times = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size).astype(np.int32)
            rank = times.take(groups, axis=1).cumsum(axis=1, dtype=np.int32)
            medians.append([ascending[np.searchsorted(row, (row[-1] + 1) // 2)] for row in rank])
        return np.concatenate(medians)


def _percentile_interval(distribution: np.ndarray) -> list[float]:
    return np.quantile(distribution, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()


def _sdr(
    sample: GroupedSample, errors: np.ndarray, films: np.ndarray, thresholds: tuple[float, ...]
) -> tuple[Rates, dict[str, Ends] | None]:
    """Successful detection rates in percent, and their intervals, by threshold; None without errors."""
    found = {f"{t:g}": sample.mean(100.0 * (errors <= t), films) for t in thresholds if errors.size}
    rates = {t: rate for t, (rate, _) in found.items() if rate is not None}
    return rates or None, {t: interval for t, (_, interval) in found.items()} or None


def _cobb_estimates(sample: GroupedSample, films: Sequence[FilmFigures]) -> dict[str, tuple[object, object]]:
    """MAE of each angle and both forms of SMAPE over the films that have angles, each with its interval."""
    owners = [i for i, row in enumerate(films) if row["cobb_true_deg"] is not None]
    if not owners:
        return dict.fromkeys(("cobb_mae_deg", "smape_published", "smape_per_angle"), (None, None))
    true = np.array([films[i]["cobb_true_deg"] for i in owners])  # [films, 3]
    predicted = np.array([films[i]["cobb_predicted_deg"] for i in owners])
    difference, total = np.abs(true - predicted), true + predicted
    mae = [sample.mean(difference[:, k], owners) for k in range(3)]
    published = _ratio_or_zero(difference.sum(axis=1), total.sum(axis=1))
    per_angle = _ratio_or_zero(difference, total).mean(axis=1)
    return {
        "cobb_mae_deg": ([value for value, _ in mae], [interval for _, interval in mae]),
        "smape_published": sample.mean(100 * published, owners),
        "smape_per_angle": sample.mean(100 * per_angle, owners),
    }


def _ratio_or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where both are 0: two straight spines agree."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _check(results: Sequence[FilmResult], schema: Schema) -> None:
    if not results:
        raise ValueError("results is empty; give at least one film")
    shape = (schema.num_levels, len(CORNERS))
    wanted = {"true_points": (*shape, 2), "true_states": shape, "points": (*shape, 2), "presence": shape[:1]}
    for result in results:
        for field, size in wanted.items():
            if (got := getattr(result, field).shape) != size:
                raise ValueError(
                    f"film {result.id}: {field} must be {list(size)} for schema {schema.name}, "
                    f"got {list(got)}; use the schema that the film was predicted with"
                )
        for field in ("true_points", "points"):
            if not np.isfinite(getattr(result, field)[result.labelled]).all():
                raise UserError(
                    f"film {result.id}: {field} has a labelled corner that is not finite; "
                    "mark it UNLABELLED or give its position"
                )
        if not np.isfinite(result.presence).all():
            raise UserError(
                f"film {result.id}: presence has values that are not finite; check the network's output"
            )
