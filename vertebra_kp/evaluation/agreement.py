"""How well two readers of one quantity agree (bias, limits, intraclass correlation), how well a score ranks."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

LIMITS = 1.96  # SD of the differences on either side: Bland and Altman, Lancet 327, 1986


@dataclass(frozen=True)
class Agreement:
    """``bias`` is the mean of second minus first; 95 % of these differences lie between ``low`` and ``high``.
    ``icc`` is the intraclass correlation ICC(A,1), nan where nothing varies."""

    count: int
    bias: float
    low: float
    high: float
    mean_absolute: float
    icc: float


def agreement(first: np.ndarray, second: np.ndarray) -> Agreement:
    """Of ``[N]`` pairs of values, N at least 2; raises ValueError for fewer."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(first) < 2:
        raise ValueError(f"agreement needs two pairs or more, got {len(first)}")
    difference = second - first
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    limits = bias - LIMITS * sd, bias + LIMITS * sd
    both = np.stack([first, second], axis=1)
    return Agreement(len(first), bias, *limits, float(np.abs(difference).mean()), icc(both))


def icc(values: np.ndarray) -> float:
    """ICC(A,1): two-way model, absolute agreement, single reader, of ``[N, readers]``.

    Source: McGraw and Wong, Psychological Methods 1, 1996.
    """
    n, k = values.shape
    total = values.mean()
    rows = k * ((values.mean(axis=1) - total) ** 2).sum() / (n - 1)
    columns = n * ((values.mean(axis=0) - total) ** 2).sum() / (k - 1)
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + total
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    below = rows + (k - 1) * error + k * (columns - error) / n
    return float((rows - error) / below) if below > 0 else float("nan")


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Probability that one of ``higher`` is above one of ``lower``, equals count half: the area under the ROC."""
    return float(stats.mannwhitneyu(higher, lower).statistic / (len(higher) * len(lower)))
