"""Figures of an evaluation, on films whose errors are set by hand."""

import dataclasses
import json
import time

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS, Schema, State
from vertebra_kp.evaluation.metrics import FilmResult, film_errors, level_shift, summarise
from vertebra_kp.measures import cobb_aasce

LATERAL, SPINE = SCHEMAS["la_lumbar"], SCHEMAS["ap_whole_spine"]
STEP = 61.0  # between vertebrae, px
HEADLINE = (
    *("mre_px", "median_px", "mre_percent_diagonal", "median_percent_diagonal", "mre_mm", "median_mm"),
    *("sdr_mm", "sdr_px", "level_shift_rate", "presence_precision", "presence_recall"),
    *("cobb_mae_deg", "smape_published", "smape_per_angle"),
)


def column(levels: int, *, lean_deg: float = 0.0) -> np.ndarray:
    """Corners ``[levels, 4, 2]`` of a straight spine that leans to the right by ``lean_deg`` going down."""
    lean = np.deg2rad(lean_deg)
    down, right = np.array([np.sin(lean), np.cos(lean)]), np.array([np.cos(lean), -np.sin(lean)])
    centre = np.array([300.0, 90.0]) + STEP * np.arange(levels)[:, None] * down
    return np.stack([centre + 41 * a * right + 22 * b * down for b in (-1, 1) for a in (-1, 1)], axis=1)


def film(schema: Schema, *, offset=(0.0, 0.0), name="film", group=None, lean_deg=0.0) -> FilmResult:
    """A fully labelled film whose prediction is off by ``offset`` (what adds to ``[levels, 4, 2]``)."""
    states = np.where(schema.exists, State.LABELLED, State.NONEXISTENT).astype(np.int8)
    points = np.where(schema.exists[..., None], column(schema.num_levels, lean_deg=lean_deg), np.nan)
    return FilmResult(
        id=name,
        group=group or name,
        size=(1200, 500),  # diagonal 1300
        spacing_mm=None,
        true_points=points,
        true_states=states,
        points=points + np.asarray(offset),
        presence=np.ones(schema.num_levels),
    )


def with_states(result: FilmResult, states: np.ndarray) -> FilmResult:
    points = np.where((states == State.LABELLED)[..., None], result.true_points, np.nan)
    return dataclasses.replace(result, true_states=states, true_points=points)


def numbers_in(tree) -> list:
    if isinstance(tree, dict):
        return [n for branch in tree.values() for n in numbers_in(branch)]
    return [n for branch in tree for n in numbers_in(branch)] if isinstance(tree, list) else [tree]


def test_errors_are_reported_in_pixels_percent_and_millimetres():
    near = film(LATERAL, offset=(3.0, 4.0), name="near")  # 5 px on each corner
    far = dataclasses.replace(film(LATERAL, offset=(12.0, 5.0), name="far"), spacing_mm=0.2)  # 13 px = 2.6 mm
    summary = summarise([near, near, far], LATERAL, bootstrap=0)
    assert summary["films"] == 3
    assert summary["corners"] == 3 * 22
    assert summary["mre_px"] == pytest.approx((5 + 5 + 13) / 3)
    assert summary["median_px"] == pytest.approx(5)
    assert summary["mre_percent_diagonal"] == pytest.approx(100 * (5 + 5 + 13) / 3 / 1300)
    assert summary["median_percent_diagonal"] == pytest.approx(100 * 5 / 1300)
    assert summary["mre_mm"] == pytest.approx(2.6)
    assert summary["median_mm"] == pytest.approx(2.6)
    assert summary["sdr_mm"] == {"2": 0, "2.5": 0, "3": 100, "4": 100}
    assert summary["sdr_px"] == pytest.approx({"2": 0, "5": 200 / 3, "10": 200 / 3, "20": 100, "50": 100})


def test_only_labelled_corners_count():
    result = film(LATERAL, offset=(3.0, 4.0))
    states = result.true_states.copy()
    states[0, 1], states[2, 3] = State.UNLABELLED, State.OUTSIDE
    points = result.points.copy()
    points[0, 1] += 900
    points[2, 3] += 900
    summary = summarise([dataclasses.replace(with_states(result, states), points=points)], LATERAL)
    assert summary["corners"] == 20
    assert summary["mre_px"] == pytest.approx(5)
    unmeasured = {"mre_px": None, "median_px": None, "sdr_mm": None, "sdr_px": None}
    assert summary["per_corner"]["L1.TR"] == unmeasured
    assert summary["per_corner"]["L1.TL"]["mre_px"] == pytest.approx(5)


def test_a_film_with_more_labelled_corners_weighs_more():
    result = film(LATERAL, offset=(0.0, 10.0), name="part")
    states = np.full_like(result.true_states, State.UNLABELLED)
    states[:2, 0] = State.LABELLED
    summary = summarise([film(LATERAL), with_states(result, states)], LATERAL)
    assert summary["mre_px"] == pytest.approx(2 * 10 / (22 + 2))


def test_errors_are_told_by_level_and_by_corner():
    offset = np.zeros((6, 4, 2))
    offset[3, 2] = (0, 8)  # L4.BL alone
    summary = summarise([film(LATERAL, offset=offset)], LATERAL)
    by_level, by_corner = summary["per_level"], summary["per_corner"]
    assert list(by_level) == list(LATERAL.levels)
    assert {level: figures["mre_px"] for level, figures in by_level.items() if figures["mre_px"]} == {"L4": 2}
    assert by_level["L4"]["median_px"] == 0
    assert by_level["L4"]["sdr_px"] == {"2": 75, "5": 75, "10": 100, "20": 100, "50": 100}
    assert [name for name, figures in by_corner.items() if figures["mre_px"]] == ["L4.BL"]
    assert by_corner["L4.BL"]["median_px"] == pytest.approx(8)
    assert len(by_corner) == 22


@pytest.mark.parametrize("direction", [-1, 1])
def test_a_prediction_one_level_off_is_shifted_by_one(direction):
    result = film(SPINE, offset=(0.0, direction * STEP))
    assert level_shift(result) == pytest.approx(direction)
    summary = summarise([result], SPINE)
    assert summary["level_shift_rate"] == 1
    assert summary["shifted_films"] == ["film"]


def test_noise_and_a_few_lost_levels_are_no_shift():
    rng = np.random.default_rng(3)
    films = []
    for i in range(8):
        offset = rng.normal(0, 6, (17, 4, 2))
        offset[rng.choice(17, 5, replace=False)] += (0, 2 * STEP)
        films.append(film(SPINE, offset=offset, name=f"{i}"))
    summary = summarise(films, SPINE)
    assert summary["level_shift_rate"] == 0
    assert summary["level_shift_rate_ci95"] == [0, 0]
    assert summary["shifted_films"] == []


def test_only_the_part_of_the_error_along_the_spine_is_a_shift():
    lean = np.deg2rad(30)
    along, across = np.array([np.sin(lean), np.cos(lean)]), np.array([np.cos(lean), -np.sin(lean)])
    result = film(SPINE, lean_deg=30, offset=0.4 * STEP * along + 5 * STEP * across)
    assert level_shift(result) == pytest.approx(0.4)


def test_half_a_step_is_the_border_of_a_shift():
    for steps, shifted in ((0.49, False), (0.51, True)):
        assert film_errors(film(SPINE, offset=(0.0, steps * STEP)))["shifted"] is shifted


def test_the_step_is_right_when_levels_between_are_not_labelled():
    result = film(SPINE, offset=(0.0, STEP))
    states = result.true_states.copy()
    states[[1, 3, 5, 6, 8, 10, 12, 13, 14]] = State.UNLABELLED  # no two neighbours but the last are left
    assert level_shift(with_states(result, states)) == pytest.approx(1)


def test_one_labelled_level_has_no_shift_to_measure():
    result = film(SPINE, offset=(0.0, STEP))
    states = np.full_like(result.true_states, State.UNLABELLED)
    states[4] = State.LABELLED
    summary = summarise([with_states(result, states)], SPINE)
    assert summary["level_shift_rate"] is None
    assert summary["shifted_films"] == []


def test_presence_counts_levels_that_somebody_judged():
    result = film(LATERAL)
    states = result.true_states.copy()
    states[0], states[1], states[2] = State.OUTSIDE, State.NONEXISTENT, State.UNLABELLED
    # Absent L1 called (false positive), absent L2 not called, L3 unknown, L4 and L5 found, S1 missed.
    presence = np.array([0.8, 0.2, 0.9, 0.5, 0.99, 0.4])
    summary = summarise([dataclasses.replace(with_states(result, states), presence=presence)], LATERAL)
    assert summary["presence_precision"] == pytest.approx(2 / 3)
    assert summary["presence_recall"] == pytest.approx(2 / 3)
    assert summary["presence_threshold"] == 0.5


def test_cobb_errors_and_both_forms_of_smape_follow_their_definitions():
    rng = np.random.default_rng(8)
    films = []
    for i in range(3):
        bend, error = rng.normal(0, 9, (17, 4, 2)), rng.normal(0, 4, (17, 4, 2))
        result = film(SPINE, name=f"{i}")
        bent = result.true_points + bend
        films.append(dataclasses.replace(result, true_points=bent, points=bent + error))
    summary = summarise(films, SPINE)
    true = np.array([cobb_aasce(f.true_points, 1200) for f in films])
    predicted = np.array([cobb_aasce(f.points, 1200) for f in films])
    mae, published, per_angle = [0.0] * 3, 0.0, [0.0] * 3
    for t, p in zip(true, predicted, strict=True):
        published += 100 * sum(abs(t[k] - p[k]) for k in range(3)) / sum(t[k] + p[k] for k in range(3)) / 3
        for k in range(3):
            mae[k] += abs(t[k] - p[k]) / 3
            per_angle[k] += 100 * abs(t[k] - p[k]) / (t[k] + p[k]) / 3
    assert summary["cobb_films"] == 3
    assert summary["cobb_mae_deg"] == pytest.approx(mae)
    assert summary["smape_published"] == pytest.approx(published)
    assert summary["smape_per_angle"] == pytest.approx(sum(per_angle) / 3)
    assert [len(interval) for interval in summary["cobb_mae_deg_ci95"]] == [2, 2, 2]


def test_two_straight_spines_agree_without_a_division_by_zero():
    summary = summarise([film(SPINE)], SPINE)
    assert summary["cobb_mae_deg"] == [0, 0, 0]
    assert summary["smape_published"] == summary["smape_per_angle"] == 0


def test_angles_need_every_corner_of_the_whole_spine():
    result = film(SPINE)
    states = result.true_states.copy()
    states[16, 3] = State.OUTSIDE
    for schema, one in ((SPINE, with_states(result, states)), (LATERAL, film(LATERAL))):
        summary = summarise([one], schema)
        assert summary["cobb_films"] == 0
        assert summary["cobb_mae_deg"] is None
        assert summary["cobb_mae_deg_ci95"] is None
        assert summary["smape_published"] is None


def test_films_without_labels_or_spacing_give_none_never_nan():
    result = film(LATERAL)
    bare = with_states(result, np.where(LATERAL.exists, State.UNLABELLED, State.NONEXISTENT))
    for films in ([bare], [bare, dataclasses.replace(bare, group="other")], [bare, result]):
        json.dumps(summarise(films, LATERAL), allow_nan=False)
    summary = summarise([bare], LATERAL)
    assert summary["mre_px"] is summary["sdr_px"] is summary["presence_recall"] is summary["mre_mm"] is None
    assert film_errors(bare)["mre_px"] is None


def test_every_headline_number_has_its_interval_around_it():
    rng = np.random.default_rng(5)
    films = []
    for i in range(40):
        offset = rng.normal((0, STEP * (i % 9 == 0)), 3, (17, 4, 2))  # every ninth film is shifted
        one = film(SPINE, offset=offset, name=f"f{i}", group=f"g{i // 2}")
        presence = rng.uniform(0.4, 1, 17)
        states = np.where(rng.random((17, 1)) < 0.1 * (i > 20), State.OUTSIDE, one.true_states)
        films.append(dataclasses.replace(with_states(one, states), presence=presence, spacing_mm=0.15))
    summary = summarise(films, SPINE)
    json.dumps(summary, allow_nan=False)
    for name in HEADLINE:
        values, intervals = numbers_in(summary[name]), numbers_in(summary[f"{name}_ci95"])
        for value, low, high in zip(values, intervals[::2], intervals[1::2], strict=True):
            assert low <= value <= high, name
            assert value in (0, 100) or low < high, name


def test_the_interval_of_the_mean_has_the_width_of_the_standard_error():
    rng = np.random.default_rng(11)
    radius = rng.uniform(2, 10, 300)
    films = [film(LATERAL, offset=(r, 0.0), name=f"{i}") for i, r in enumerate(radius)]
    summary = summarise(films, LATERAL, bootstrap=4000)
    half_width = 1.96 * radius.std(ddof=1) / np.sqrt(300)
    expected = [radius.mean() - half_width, radius.mean() + half_width]
    assert summary["mre_px_ci95"] == pytest.approx(expected, abs=0.1 * half_width)
    # Median of a uniform distribution on 2..10: standard error 1 / (2 f sqrt n) with density f = 1/8.
    low, high = summary["median_px_ci95"]
    assert high - low == pytest.approx(2 * 1.96 * 8 / (2 * np.sqrt(300)), rel=0.25)


def test_patients_are_resampled_not_films():
    # Each patient's film four times over: the same information, so the same width as one film per patient.
    radius = np.random.default_rng(2).uniform(2, 10, 50)
    once = [film(LATERAL, offset=(r, 0.0), name=f"{i}", group=f"p{i}") for i, r in enumerate(radius)]
    for name in ("mre_px_ci95", "median_px_ci95"):
        single, repeated = summarise(once, LATERAL)[name], summarise(once * 4, LATERAL)[name]
        assert repeated == pytest.approx(single, rel=1e-9), name


def test_one_patient_has_no_interval():
    films = [film(LATERAL, offset=(3.0, i), name=f"{i}", group="one") for i in range(5)]
    summary = summarise(films, LATERAL)
    assert summary["mre_px"] is not None
    assert summary["mre_px_ci95"] is summary["median_px_ci95"] is None


def test_the_same_films_give_the_same_intervals():
    rng = np.random.default_rng(1)
    films = [film(LATERAL, offset=rng.normal(0, 5, 2), name=f"{i}") for i in range(12)]
    assert summarise(films, LATERAL) == summarise(films, LATERAL)


def test_the_row_of_a_film_holds_its_own_figures():
    offset = np.zeros((17, 4, 2))
    offset[5, 1] = (0, 34)
    row = film_errors(dataclasses.replace(film(SPINE, offset=offset, name="a", group="b"), spacing_mm=0.5))
    assert (row["id"], row["group"], row["corners"], row["shifted"]) == ("a", "b", 68, False)
    assert row["mre_px"] == pytest.approx(34 / 68)
    assert row["max_px"] == pytest.approx(34)
    assert row["mre_percent_diagonal"] == pytest.approx(100 * 0.5 / 1300)
    assert row["mre_mm"] == pytest.approx(0.25)
    assert row["cobb_true_deg"] == [0, 0, 0]
    # T6's right side is lower by 34 / 2 over a width of 82.
    assert row["cobb_predicted_deg"][0] == pytest.approx(np.degrees(np.arctan2(17, 82)))


def test_bad_results_are_refused_with_the_film_and_the_field():
    result = film(LATERAL)
    lost = result.points.copy()
    lost[1, 1] = np.nan
    blind = np.full(6, np.nan)
    with pytest.raises(ValueError, match="results is empty"):
        summarise([], LATERAL)
    with pytest.raises(ValueError, match=r"film film: true_points must be \[17, 4, 2\].*got \[6, 4, 2\]"):
        summarise([result], SPINE)
    with pytest.raises(ValueError, match="film film: points has a labelled corner that is not finite"):
        summarise([dataclasses.replace(result, points=lost)], LATERAL)
    with pytest.raises(ValueError, match="film film: presence has values that are not finite"):
        summarise([dataclasses.replace(result, presence=blind)], LATERAL)


def test_five_hundred_whole_spines_take_no_more_than_two_seconds():
    rng = np.random.default_rng(0)
    films = [film(SPINE, offset=rng.normal(0, 5, (17, 4, 2)), name=f"{i}", group=f"{i // 2}") for i in range(500)]
    start = time.process_time()  # of this process: other work on the machine does not count
    summarise([dataclasses.replace(one, spacing_mm=0.2) for one in films], SPINE)
    assert time.process_time() - start < 2
