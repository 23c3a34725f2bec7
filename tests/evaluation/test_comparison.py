"""Intervals of differences over seeds and films: worked by hand, and how often they hold."""

import numpy as np
import pytest
from scipy import stats

from vertebra_kp.experiments.comparison import half_width, interval_of


def crossed(seeds, films, rest):
    """``[S, F]`` of a seed part ``[S]``, a film part ``[F]`` and what is left."""
    return np.asarray(seeds)[:, None] + np.asarray(films)[None, :] + np.asarray(rest)


# Rows and columns of the rest sum to zero: the parts are separated exactly.
REST = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])


def test_the_half_width_of_a_small_table_is_that_worked_by_hand():
    differences = crossed([-3.0, 3.0], [-4.0, 0.0, 4.0], REST)
    seeds = 3 * (9 + 9) / 1  # mean square of 2 seeds: 54
    films = 2 * (16 + 0 + 16) / 2  # of 3 films: 32
    rest = 4 / 2  # four ones over (2 - 1) (3 - 1)
    by_seeds, by_films = stats.t.ppf(0.95, 1) ** 2 * seeds / 6, stats.t.ppf(0.95, 2) ** 2 * (films - rest) / 6
    assert half_width(differences, 0.9) == pytest.approx(np.sqrt(by_seeds + by_films))


@pytest.mark.parametrize(
    ("seeds", "films", "by_seeds", "by_films"),
    [
        pytest.param([0, 0], [-4, 0, 4], 2, 30, id="seeds that happen to agree count as the rest"),
        pytest.param([-3, 3], [0, 0, 0], 54, 0, id="films that do not differ count nothing"),
        pytest.param([0, 0], [0, 0, 0], 2, 0, id="neither differs"),
    ],
)
def test_a_component_that_comes_out_negative_is_none(seeds, films, by_seeds, by_films):
    half = np.sqrt((stats.t.ppf(0.95, 1) ** 2 * by_seeds + stats.t.ppf(0.95, 2) ** 2 * by_films) / 6)
    assert half_width(crossed(seeds, films, REST), 0.9) == pytest.approx(half)


def test_one_seed_gives_students_interval_over_films_and_says_so():
    differences = np.array([[0.3, -0.1, 0.8, 0.4, -0.2]])
    interval = interval_of(differences, 0.95)
    low, high = stats.ttest_1samp(differences[0], 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.over == "films"
    assert interval_of(differences.T, 0.95).over == "seeds"
    assert interval_of(np.array([[0.3]]), 0.95) is None


def test_equal_differences_have_an_interval_without_width():
    interval = interval_of(np.full((3, 4), 0.25), 0.95)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)
    assert interval.verdict == "worse"


@pytest.mark.parametrize(("shift", "verdict"), [(-9, "better"), (9, "worse"), (0, "no significant difference")])
def test_the_verdict_follows_from_where_zero_lies(shift, verdict):
    assert interval_of(crossed([-1, 0, 1], [-1, 0, 1], 0) + shift, 0.95).verdict == verdict


@pytest.mark.parametrize("level", [0.95, 0.99375])  # alone, and as one of eight comparisons
@pytest.mark.parametrize(
    ("seed", "film", "rest"),
    [
        pytest.param(0.0, 1.0, 1.0, id="seeds do not matter"),
        pytest.param(0.2, 1.0, 1.0, id="seeds matter as much as films"),
        pytest.param(0.5, 1.0, 1.0, id="seeds matter more"),
        pytest.param(1.0, 0.0, 1.0, id="films do not matter"),
    ],
)
def test_intervals_of_three_seeds_hold_at_least_as_often_as_they_say(seed, film, rest, level):
    rng = np.random.default_rng(7)
    studies, S, F = 2000, 3, 60
    held = 0
    for _ in range(studies):
        differences = crossed(seed * rng.normal(size=S), film * rng.normal(size=F), rest * rng.normal(size=(S, F)))
        interval = interval_of(differences, level)
        held += interval.low <= 0 <= interval.high
    chance = 3 * (level * (1 - level) / studies) ** 0.5
    assert held / studies >= level - chance


def test_films_alone_would_hold_too_rarely_where_seeds_matter():
    """Why seeds are in the model: averaged over seeds, an interval over films forgets them."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(500):
        differences = crossed(0.5 * rng.normal(size=3), rng.normal(size=60), rng.normal(size=(3, 60)))
        interval = interval_of(differences.mean(axis=0, keepdims=True), 0.95)
        held += interval.low <= 0 <= interval.high
    assert held / 500 < 0.75
