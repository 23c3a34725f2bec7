"""Two evaluations of the same films against each other: paired by film, resampled by patient, and a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.metrics import CONFIDENCE, FilmResult, GroupedSample, film_errors
from vertebra_kp.evaluation.store import Evaluation
from vertebra_kp.evaluation.uncertainty.calibration import FilmErrors, errors_of

RESAMPLES = 2000
FEWEST_PATIENTS = 10  # of fewer, resampled patients find differences between equal networks far too often
SIGNIFICANT = 0.05
NO_DIFFERENCE = "no significant difference"


@dataclass(frozen=True)
class Difference:
    """``what`` differs by ``mean`` (second minus first, over ``films``), with a ``CONFIDENCE`` interval over
    patients and the p value of Wilcoxon's signed-rank test of the patients' means.
    """

    what: str
    unit: str
    films: int
    first: float
    second: float
    mean: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """A difference counts only where the interval and the test agree on it."""
        if self.p >= SIGNIFICANT or self.low <= 0 <= self.high:
            return NO_DIFFERENCE
        return "worse" if self.low > 0 else "better"


def compare(first: Evaluation, second: Evaluation) -> list[Difference]:
    """Mean radial error, then the absolute error of every measure; less is better throughout.

    Only films that both have count. Raises UserError where the schemas differ, too few films are common, or their
    labels are not the same.
    """
    if first.schema != second.schema:
        raise UserError(
            f"one run is of {first.schema.name}, the other of {second.schema.name}: nothing to compare"
        )
    pairs = _paired(first, second)
    groups = [a.group for a, _ in pairs]
    # What has no error in one of the two is None there, and becomes nan.
    radial = np.array([[film_errors(result)["mre_px"] for result in pair] for pair in pairs], dtype=float)
    found = [_difference("mean radial error", "px", groups, radial)]
    errors = [(errors_of(a, first.schema), errors_of(b, first.schema)) for a, b in pairs]
    for name, unit in {m.name: m.unit for a, _ in errors for m, _, _ in a.measures}.items():
        absolute = np.array([[_absolute(film, name) for film in pair] for pair in errors])
        known = np.isfinite(absolute).all(axis=1)
        if len({group for group, k in zip(groups, known, strict=True) if k}) >= FEWEST_PATIENTS:
            found.append(_difference(name, unit, groups, absolute))
    return [difference for difference in found if difference is not None]


def _paired(first: Evaluation, second: Evaluation) -> list[tuple[FilmResult, FilmResult]]:
    others = {result.id: result for result in second.results}
    pairs = [(result, others[result.id]) for result in first.results if result.id in others]
    patients = len({result.group for result, _ in pairs})
    if patients < FEWEST_PATIENTS:
        raise UserError(
            f"the runs have {len(pairs)} films of {patients} patients in common; measure both on the same films "
            f"of {FEWEST_PATIENTS} patients or more"
        )
    for a, b in pairs:
        if not np.array_equal(a.true_points, b.true_points, equal_nan=True):
            raise UserError(f"film {a.id} has other labels in the two runs; measure both with the same repairs")
    return pairs


def _absolute(film: FilmErrors, name: str) -> float:
    """Mean absolute error of a measure over its places on one film, nan without any."""
    errors = [abs(pair.error) for pair in film.measures if pair.measurement.name == name]
    return float(np.mean(errors)) if errors else float("nan")


def _difference(what: str, unit: str, groups: Sequence[str], errors: np.ndarray) -> Difference | None:
    """Of ``errors`` ``[films, 2]`` of the first and the second; films with nan in either are left out."""
    known = np.isfinite(errors).all(axis=1)
    one, other = errors[known].T
    if not len(one):
        return None
    change = other - one
    patients = np.array(groups)[known]
    mean = float(change.mean())
    _, interval = GroupedSample(patients, RESAMPLES).mean(change, range(len(change)))
    low, high = interval or (-np.inf, np.inf)
    _, patient = np.unique(patients, return_inverse=True)
    of_patient = np.bincount(patient, change) / np.bincount(patient)
    p = float(stats.wilcoxon(of_patient).pvalue) if of_patient.any() else 1.0
    return Difference(what, unit, len(change), float(one.mean()), float(other.mean()), mean, low, high, p)


def sentence(difference: Difference, first: str, second: str) -> str:
    """What the mean radial error says, in words."""
    share = f"{100 * CONFIDENCE:.0f} % interval {difference.low:+.2f} to {difference.high:+.2f}"
    about = f"({difference.mean:+.2f} {difference.unit}, {share}, p {difference.p:.2g}, {difference.films} films)"
    if difference.verdict == NO_DIFFERENCE:
        return f"{second} and {first} show {NO_DIFFERENCE} of the mean radial error {about}."
    return f"{second} is {difference.verdict} than {first}: its mean radial error differs by {about[1:-1]}."
