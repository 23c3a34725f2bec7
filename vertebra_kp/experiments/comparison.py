"""Is a variant better than its baseline? Intervals of paired differences over seeds and films.

Seeds and films both are samples of what could have been. With one difference per seed and film, the model is that
of two crossed random factors, ``difference = mean + seed + film + rest``. Mean squares: Cornfield and Tukey, Ann.
Math. Statist. 27 (1956); Searle, Casella and McCulloch, Variance Components (1992), chapter 4.

Each factor has a half-width of its own, with the t quantile of its own few or many degrees of freedom, and the two
are added in quadrature. One quantile for their summed variance (Satterthwaite 1946) is narrower and does not hold
where it is needed: at the 99.4 % that each of eight comparisons asks for, up to 3 % of simulated intervals of
three seeds missed; of these, a fifth of a percent or less. Films of one patient count as independent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from vertebra_kp.evaluation.compare import NO_DIFFERENCE

Over = Literal["films and seeds", "films", "seeds"]


@dataclass(frozen=True)
class Interval:
    """Of a mean difference; ``over`` says whose chance it holds."""

    mean: float
    low: float
    high: float
    over: Over

    @property
    def verdict(self) -> str:
        """Of an error, where less is better."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else NO_DIFFERENCE


def interval_of(differences: np.ndarray, level: float) -> Interval | None:
    """Mean of ``differences [seeds, films]`` with its interval at ``level`` (such as 0.95), Student's t.

    With one seed it says what other films would change, and nothing about other seeds; with one film the reverse.
    None for a single difference.
    """
    S, F = differences.shape
    if S * F < 2:
        return None
    mean, half = float(differences.mean()), half_width(differences, level)
    over: Over = "films" if S == 1 else "seeds" if F == 1 else "films and seeds"
    return Interval(mean, mean - half, mean + half, over)


def half_width(differences: np.ndarray, level: float) -> float:
    """Half the width of the interval of the grand mean of ``[seeds, films]``."""
    S, F = differences.shape

    def quantile(freedom: int) -> float:
        return float(stats.t.ppf((1 + level) / 2, freedom))

    if min(S, F) == 1:
        n = S * F
        return quantile(n - 1) * float(differences.std(ddof=1)) / n**0.5
    grand = differences.mean()
    seed, film = differences.mean(axis=1) - grand, differences.mean(axis=0) - grand  # [S], [F]
    rest = differences - grand - seed[:, None] - film[None, :]
    seeds = F * float((seed**2).sum()) / (S - 1)  # mean squares
    films = S * float((film**2).sum()) / (F - 1)
    residual = float((rest**2).sum()) / ((S - 1) * (F - 1))
    # A mean square of seeds below the rest's is chance: few seeds happened to agree.
    by_seeds = quantile(S - 1) ** 2 * max(seeds, residual) / (S * F)
    by_films = quantile(F - 1) ** 2 * max(films - residual, 0) / (S * F)
    return (by_seeds + by_films) ** 0.5
