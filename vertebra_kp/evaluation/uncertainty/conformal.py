"""Split conformal prediction with several values per patient: quantiles that hold for the next patient.

Source: Vovk et al., Algorithmic Learning in a Random World, 2005; groups as in Dunn, Wasserman and Ramdas, JASA
2022 (pooled distributions: every patient counts the same, however many corners it brings).
"""

import numpy as np


def conformal_quantile(scores: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """A bound that values of a new group stay below with probability ``coverage``, on the average over them.

    ``scores`` ``[N]`` of calibration, ``groups`` ``[N]`` whose they are. inf where there are too few groups for
    the coverage: with G of them at most G / (G + 1) can be promised. Raises ValueError for nan among the scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("scores holds nan; leave out what could not be measured")
    if not scores.size:
        return float("inf")
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = scores.argsort(kind="stable")
    share = np.cumsum(1 / counts[group[order]]) / (len(counts) + 1)  # the new group's own share lies at inf
    reached = np.searchsorted(share, coverage - 1e-12)
    return float(scores[order[reached]]) if reached < len(scores) else float("inf")


def two_sided(errors: np.ndarray, groups: np.ndarray, coverage: float) -> tuple[float, float]:
    """Low and high bound, each missed by half of what ``coverage`` leaves: errors need not be centred on 0."""
    one_side = (1 + coverage) / 2
    return -conformal_quantile(-np.asarray(errors), groups, one_side), conformal_quantile(errors, groups, one_side)
