"""Regions and intervals made on some phantoms and judged on others, whose errors are known."""

import dataclasses
import json

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.evaluation.metrics import FilmResult
from vertebra_kp.evaluation.uncertainty.calibration import (
    Calibration,
    MeasureError,
    calibrate,
    errors_of,
)
from vertebra_kp.evaluation.uncertainty.coverage import coverage, cross_coverage
from vertebra_kp.measures import Spine, measure

LUMBAR = SCHEMAS["la_lumbar"]
SIZE = (320, 160)


@pytest.fixture(scope="module")
def drawn():
    return [draw_film(LUMBAR, "standard", 8, i, SIZE) for i in range(60)]


def results(drawn, number: int, *, seed=0, told=1.0, bias=0.0) -> list[FilmResult]:
    """Predictions with errors of known covariance, which the network takes to be ``told`` times as large."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(number):
        film = drawn[i % len(drawn)]
        sd = rng.uniform(0.2, 1.0, (*film.states.shape, 2, 1))  # corners differ in how sure they are
        covariances = sd**2 * np.eye(2)
        error = rng.normal(size=film.points_xy_image.shape) * sd[..., 0] + bias
        found.append(
            FilmResult(
                f"film{i}",
                f"patient{i}",
                SIZE,
                film.spacing_mm,
                film.points_xy_image,
                film.states,
                film.points_xy_image + error,
                np.ones(LUMBAR.num_levels),
                told**2 * covariances,
                film.anterior_side,
            )
        )
    return found


def from_file(calibration: Calibration) -> Calibration:
    text = json.dumps(calibration.as_dict(), allow_nan=False)
    return TypeAdapter(Calibration).validate_json(text)


def errors(*args, **kwargs):
    return [errors_of(result, LUMBAR) for result in results(*args, **kwargs)]


@pytest.mark.parametrize("told", [0.2, 1.0, 5.0])
def test_the_factor_mends_a_network_that_doubts_itself_too_much_or_too_little(drawn, told):
    calibration = calibrate(errors(drawn, 150, told=told), LUMBAR)
    # 90 percent of a normal distribution in the plane lie within 2.146 SD.
    assert calibration.corner_factor * told == pytest.approx(np.sqrt(-2 * np.log(0.1)), rel=0.05)
    assert set(calibration.level_factors) == set(LUMBAR.levels)


def test_other_patients_are_covered_as_promised(drawn):
    calibration = calibrate(errors(drawn, 300, seed=1), LUMBAR)
    found = coverage(errors(drawn, 300, seed=2), LUMBAR, calibration)
    assert found["corners"]["coverage"] == pytest.approx(0.9, abs=0.015)
    assert found["all_measures"]["coverage"] == pytest.approx(0.9, abs=0.02)
    for name, figures in found["measures"].items():
        assert figures["coverage"] == pytest.approx(0.9, abs=0.06), name


def test_cross_coverage_judges_every_film_by_the_others(drawn):
    found = cross_coverage(errors(drawn, 100), LUMBAR, promised=0.8)
    assert found["corners"]["count"] == 100 * LUMBAR.num_channels
    assert found["corners"]["coverage"] == pytest.approx(0.8, abs=0.03)


def test_parts_that_are_given_judge_each_other(drawn):
    """Told right, 90 % hold within 2.146 SD; judged by a part that told a tenth of its errors, nearly all do."""
    right, boasting = errors(drawn, 60), errors(drawn, 60, seed=1, told=0.1)
    found = cross_coverage([*right, *boasting], LUMBAR, promised=0.9, part_of=[0] * 60 + [1] * 60)
    # Of the boasting ones within 2.146 times a tenth of their SD: 1 - exp(-0.2146^2 / 2), 2.3 percent.
    assert found["corners"]["coverage"] == pytest.approx((1 + 0.023) / 2, abs=0.01)


def test_intervals_follow_what_the_film_is_sure_of(drawn):
    calibration = calibrate(errors(drawn, 150), LUMBAR)
    film = drawn[0]
    slip = next(
        m
        for m in measure(Spine(LUMBAR, film.points_xy_image, SIZE, film.spacing_mm, film.anterior_side))
        if m.name == "slip_percent"
    )
    sure, unsure = calibration.interval(slip, 0.5), calibration.interval(slip, 5.0)
    assert sure.low < slip.value < sure.high
    assert unsure.low < sure.low < sure.high < unsure.high
    assert sure.coverage == 0.9


def test_large_values_have_a_conformal_scale_of_their_own(drawn):
    """Every twentieth patient's slip is large and read at half of its size, the others' are read within 1 %."""
    (film,) = errors(drawn, 1)
    slip = next(m for m in film.measures if m[0].name == "slip_percent")[0]
    rng = np.random.default_rng(0)

    def films(number):
        found = []
        for i in range(number):
            read, true = (rng.uniform(5, 7),) * 2 if i % 20 == 0 else (0.0, rng.uniform(-1, 1))
            read_slip = dataclasses.replace(slip, value=float(read))
            pair = MeasureError(read_slip, 2 * true if read else true, 1.0)
            found.append(dataclasses.replace(film, group=f"patient{i}", measures=[pair]))
        return found

    calibration = calibrate(films(3000), LUMBAR)
    ordinary, large = (calibration.interval(dataclasses.replace(slip, value=value), 1.0) for value in (0.5, 6.0))
    assert ordinary.high - ordinary.low < 2.1
    # Errors of large readings lie evenly between 5 and 7: nine tenths of them around 6.
    assert (large.low, large.high) == (pytest.approx(11.1, abs=0.1), pytest.approx(12.9, abs=0.1))
    again = from_file(calibration)
    assert again == calibration
    # Too few large ones: all share one scale.
    assert calibrate(films(1800), LUMBAR).measures["slip_percent"].large is None


def test_lengths_have_no_negative_ends(drawn):
    calibration = calibrate(errors(drawn, 150), LUMBAR)
    film = drawn[0]
    spine = Spine(LUMBAR, film.points_xy_image, SIZE, film.spacing_mm, film.anterior_side)
    height = next(m for m in measure(spine) if m.name == "posterior_disc_height")
    assert calibration.interval(height, 1000.0).low == 0


def test_errors_to_one_side_make_intervals_to_one_side(drawn):
    film = errors(drawn, 1)[0]
    slip = next(entry for entry in film.measures if entry[0].name == "slip_percent")
    rng = np.random.default_rng(0)
    always_low = [
        dataclasses.replace(
            film, group=f"p{i}", measures=[slip._replace(true=slip.value + rng.uniform(2, 6), standard_error=1.0)]
        )
        for i in range(200)
    ]
    interval = calibrate(always_low, LUMBAR).interval(slip[0], 1.0)
    assert interval.low - slip[0].value == pytest.approx(2.2, abs=0.25)
    assert interval.high - slip[0].value == pytest.approx(5.8, abs=0.25)


def test_few_patients_promise_nothing(drawn):
    calibration = calibrate(errors(drawn, 8), LUMBAR)
    assert calibration.corner_factor == np.inf
    assert calibration.measures == {}
    slip = measure(Spine(LUMBAR, drawn[0].points_xy_image, SIZE, 1.0, "left"))[0]
    assert calibration.interval(slip, 1.0) is None
    assert from_file(calibration) == calibration


def test_what_is_not_labelled_or_not_seen_counts_nowhere(drawn):
    (result,) = results(drawn, 1)
    states = result.true_states.copy()
    states[2] = State.UNLABELLED
    presence = result.presence.copy()
    presence[4] = 0.2
    found = errors_of(dataclasses.replace(result, true_states=states, presence=presence), LUMBAR)
    assert np.isnan(found.distances[2]).all()
    assert np.isfinite(found.distances[4]).all()  # labelled, so its corners count; but it is not measured
    told = {at for m, _, _ in found.measures for at in m.at.replace("-", "/").split("/")}
    assert "L3" not in told
    assert "L5" not in told


def test_a_calibration_survives_its_file(drawn):
    calibration = calibrate(errors(drawn, 120), LUMBAR)
    assert from_file(calibration) == calibration


def test_a_broken_or_foreign_calibration_is_refused(drawn):
    content = calibrate(errors(drawn, 20), LUMBAR).as_dict()
    del content["corner_factor"]
    with pytest.raises(ValidationError, match="corner_factor"):
        TypeAdapter(Calibration).validate_python(content)
    with pytest.raises(UserError, match=r"coverage 1.5"):
        calibrate(errors(drawn, 2), LUMBAR, 1.5)
