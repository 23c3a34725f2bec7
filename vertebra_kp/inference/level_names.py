"""Names of the vertebrae of a spine: a path through the levels that may start anywhere and skips nothing.

Every vertebra speaks for the level it looks like (first and last rib, sacrum, shape); neighbours on the spine are
neighbours by name. Patients with 16 or 18 vertebrae between neck and sacrum are a reported alternative (after the
path of VERIDAH, Möller et al., 2025, in which T12 and L5 may repeat or be left out).
"""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, Schema

FLOOR = 0.01  # probability that a vertebra looks like any level: one wrong look is not proof
BEYOND = FLOOR + 1 / len(LEVELS)  # evidence of a level that no network of the schema is trained to know
BESIDE_THE_SCHEMA = ("C7", "S1")  # what stands beyond the ends of T1..L5: networks know it by name
# Neighbours look alike for the same reasons: their summed evidence counts by this over the root of their number.
SHARED = 0.55
RARE = 0.03  # prior of a variant against the usual number of vertebrae
REPORTED_FROM = 0.2  # probability of a variant that is worth a word

# By name: the level after which it leaves the usual order, and how many places of that order it then skips.
VARIANTS = {"T13": ("T12", -1), "T12 missing": ("T11", 1), "L6": ("L5", -1), "L5 missing": ("L4", 1)}


@dataclass(frozen=True)
class Names:
    """``levels`` ``[n]``, places in ``LEVELS``, -1 beyond; ``probability`` that all are right, with the usual
    number of vertebrae; ``fit``, the mean log-probability of a vertebra under its name.

    ``alternative`` is another number of vertebrae that is likely, such as "T13", with its own probability.
    """

    levels: np.ndarray
    probability: float
    alternative: str | None = None
    alternative_probability: float = 0.0
    fit: float = -np.inf


def name_levels(log_probabilities: np.ndarray, schema: Schema, pinned: tuple[int, int] | None = None) -> Names:
    """Names by evidence ``[n, L]`` of vertebrae from head to foot.

    ``pinned`` (place among the vertebrae, place in ``LEVELS``) fixes one name, all others follow.
    """
    n, places = log_probabilities.shape[0], len(LEVELS)
    known = np.isin(LEVELS, [*schema.levels, *BESIDE_THE_SCHEMA])
    if n == 0:
        return Names(np.empty(0, dtype=np.int64), 0.0)
    in_schema = np.isin(LEVELS, schema.levels)
    evidence = np.where(known, np.log(FLOOR + np.exp(log_probabilities)), np.log(BEYOND))
    orders = {"": np.arange(places)} | {name: _order(*rule) for name, rule in VARIANTS.items()}
    counted = SHARED / np.sqrt(n)
    sums: dict[tuple[str, int], float] = {}
    for variant, order in orders.items():
        for start in range(1 - n, len(order)):
            names = _names(order, start, n)
            if (pinned is not None and names[pinned[0]] != pinned[1]) or not in_schema[names[names >= 0]].any():
                continue
            if variant and not _shows(order, start, n):
                continue
            inside = names >= 0
            total = evidence[np.flatnonzero(inside), names[inside]].sum() + (~inside).sum() * np.log(FLOOR)
            sums[variant, start] = counted * total + (np.log(RARE) if variant else 0.0)
    if not sums:
        return Names(np.full(n, -1), 0.0)
    values = np.array(list(sums.values()))
    share = dict(zip(sums, np.exp(values - values.max()) / np.exp(values - values.max()).sum(), strict=True))
    usual = {key: value for key, value in share.items() if not key[0]}
    best = max(usual, key=usual.__getitem__) if usual else max(share, key=share.__getitem__)
    others: dict[str, float] = {}
    for (variant, _), value in share.items():
        if variant:
            others[variant] = others.get(variant, 0.0) + float(value)
    alternative = max(others, key=others.__getitem__, default=None)
    reported = alternative if alternative is not None and others[alternative] >= REPORTED_FROM else None
    return Names(
        _names(orders[best[0]], best[1], n),
        float(share[best]) / sum(map(float, usual.values())) if usual else float(share[best]),
        reported,
        others[reported] if reported is not None else 0.0,
        (values[list(sums).index(best)] - (np.log(RARE) if best[0] else 0.0)) / counted / n,
    )


def _order(after: str, skipped: int) -> np.ndarray:
    """Places of a spine that repeats the level ``after`` (-1) or leaves out the next one (1)."""
    usual, at = np.arange(len(LEVELS)), LEVELS.index(after)
    return np.insert(usual, at + 1, at) if skipped < 0 else np.delete(usual, at + 1)


def _names(order: np.ndarray, start: int, n: int) -> np.ndarray:
    at = start + np.arange(n)
    inside = (at >= 0) & (at < len(order))
    return np.where(inside, order[np.clip(at, 0, len(order) - 1)], -1)


def _shows(order: np.ndarray, start: int, n: int) -> bool:
    """Whether the part that is seen differs from every part of a usual spine."""
    names = _names(order, start, n)
    steps = np.diff(names[names >= 0])
    return bool((steps != 1).any())
