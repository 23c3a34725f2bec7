"""Is a variant better than its baseline? Intervals of paired differences over seeds and films.

Seeds and films both are samples of what could have been. With one difference per seed and film, the model is that
of two crossed random factors, ``difference = mean + seed + film + rest``. Variances from mean squares: Cornfield
and Tukey, Annals of Mathematical Statistics 27 (1956); Searle, Casella and McCulloch, Variance Components (1992),
chapter 4. Degrees of freedom: Satterthwaite, Biometrics Bulletin 2 (1946).

With normal parts, 60 to 85 films and any mixture of variances, simulated 95 % intervals hold in 92 to 96 % of
studies of three seeds, in 94 to 96 % of five, and with two seeds sometimes only in 89 %. Films of one patient
count as independent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """Of a mean difference; ``over`` says whose chance it holds."""

    mean: float
    low: float
    high: float
    over: Literal["films and seeds", "films", "seeds"]

    @property
    def verdict(self) -> str:
        """Of an error, where less is better."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "not told apart"


def interval_of(differences: np.ndarray, level: float) -> Interval | None:
    """Mean of ``differences [seeds, films]`` with its interval at ``level`` (such as 0.95), Student's t.

    With one seed it tells what other films would change, and nothing about other seeds; with one film the reverse.
    None for a single difference.
    """
    S, F = differences.shape
    if S * F < 2:
        return None
    variance, freedom = variance_of_mean(differences)
    mean = float(differences.mean())
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * variance**0.5 if variance else 0.0
    over = "films" if S == 1 else "seeds" if F == 1 else "films and seeds"
    return Interval(mean, mean - half, mean + half, over)


def variance_of_mean(differences: np.ndarray) -> tuple[float, float]:
    """Variance of the grand mean of ``[seeds, films]``, and its degrees of freedom.

    A factor whose component comes out negative is left out, as if it had no variance.
    """
    S, F = differences.shape
    if min(S, F) == 1:
        n = S * F
        return float(differences.var(ddof=1)) / n, n - 1
    grand = differences.mean()
    seed, film = differences.mean(axis=1) - grand, differences.mean(axis=0) - grand  # [S], [F]
    rest = differences - grand - seed[:, None] - film[None, :]
    seeds = F * float((seed**2).sum()) / (S - 1)
    films = S * float((film**2).sum()) / (F - 1)
    residual = float((rest**2).sum()) / ((S - 1) * (F - 1))
    # (mean square of seeds + of films - of the rest) / (S F); each pair is a mean square and its freedom.
    if seeds <= residual and films <= residual:
        parts = [(residual, (S - 1) * (F - 1))]
    elif seeds <= residual:
        parts = [(films, F - 1)]
    elif films <= residual:
        parts = [(seeds, S - 1)]
    else:
        parts = [(seeds, S - 1), (films, F - 1), (-residual, (S - 1) * (F - 1))]
    total = sum(square for square, _ in parts)
    spread = sum(square**2 / freedom for square, freedom in parts)
    return total / (S * F), total**2 / spread if spread else S * F - 1
