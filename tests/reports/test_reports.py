"""Reports, comparisons and readings: what they say is what was measured, and nothing is fetched from elsewhere."""

import contextlib
import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from one_prediction import a_prediction
from shared_data import field_case

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_json
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.evaluation.agreement import agreement, auc, icc
from vertebra_kp.evaluation.compare import compare, sentence
from vertebra_kp.evaluation.metrics import FilmResult, film_errors, summarise
from vertebra_kp.evaluation.robustness import Row, write_rows
from vertebra_kp.evaluation.store import FILE, checksum, evaluation_of, load_evaluation, pooled, save_evaluation
from vertebra_kp.evaluation.uncertainty.calibration import calibrate, errors_of
from vertebra_kp.evaluation.uncertainty.shape import fit_shapes
from vertebra_kp.evaluation.uncertainty.store import (
    Calibrated,
    find_calibrated,
    load_calibrated,
    patient_fingerprint,
    save_calibrated,
)
from vertebra_kp.evaluation.uncertainty.trust import SIGNS, fit_trust
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.reports.evaluation import write_report
from vertebra_kp.reports.film_page import NAMES, film_page
from vertebra_kp.reports.interpretation import interpret
from vertebra_kp.reports.schema import MeasurementReport, image_report, write_measurement_report

REPOSITORY = Path(__file__).parents[2]
SIZE = (200, 100)
SIZES = {"la_whole_spine": (800, 320)}  # its vertebrae must be large beside the noise
FILMS = 24
SD_PX = 0.8


def drawn(name):
    return [draw_film(SCHEMAS[name], "standard", 6, i, SIZES.get(name, SIZE)) for i in range(FILMS)]


def predicted(film, sd, rng) -> Prediction:
    points = film.points_xy_image + rng.normal(0, sd, film.points_xy_image.shape)
    levels = len(points)
    covariances = np.broadcast_to(SD_PX**2 * np.eye(2), (levels, 4, 2, 2))
    return a_prediction(points, covariances=covariances)


def result_of(film, prediction, i) -> FilmResult:
    return FilmResult(
        f"film{i}",
        f"patient{i // 2}",
        SIZE,
        film.spacing_mm,
        film.points_xy_image.astype(np.float64),
        film.states,
        prediction.points_xy_image,
        prediction.presence,
        prediction.covariances,
        film.anterior_side,
    )


def evaluation_folder(folder, name="la_lumbar", *, sd=SD_PX, seed=0):
    folder.mkdir(exist_ok=True)
    rng, films = np.random.default_rng(seed), drawn(name)
    results = [result_of(film, predicted(film, sd, rng), i) for i, film in enumerate(films)]
    source = SimpleNamespace(at=lambda epoch, i: SimpleNamespace(image=films[i].image, to_image=np.eye(3)))
    save_evaluation(evaluation_of(SCHEMAS[name], results, source, rng.uniform(size=FILMS)), folder / FILE)
    summary = summarise(results, SCHEMAS[name], bootstrap=100)
    about = {
        "source": "phantom",
        "mark": "one",
        "split": None,
        "step": 7,
        "version": "abc123",
        "config": {"name": "<try>"},
    }
    write_json(about | summary, folder / "metrics.json")
    return folder


def calibrated(name) -> Calibrated:
    schema, films, rng = SCHEMAS[name], drawn(name), np.random.default_rng(1)
    errors = [errors_of(result_of(f, predicted(f, SD_PX, rng), 2 * i), schema) for i, f in enumerate(films)]
    trust = fit_trust([dict.fromkeys(SIGNS, 1e6)] * 99)  # nothing is odder
    return Calibrated(calibrate(errors, schema), fit_shapes([f.points_xy_image for f in films], schema), trust)


def test_an_evaluation_is_read_back_as_it_was(tmp_path):
    evaluation = load_evaluation(evaluation_folder(tmp_path))
    film = drawn("la_lumbar")[5]
    result = evaluation.results[5]
    assert (result.id, result.group, result.size, result.anterior_side) == ("film5", "patient2", SIZE, "left")
    assert result.spacing_mm == pytest.approx(film.spacing_mm)
    np.testing.assert_array_equal(result.true_points, film.points_xy_image)
    errors = [film_errors(r)["mre_px"] for r in evaluation.results]
    assert list(evaluation.worst) == list(np.argsort(errors)[::-1][:6])
    assert not set(evaluation.worst) & set(evaluation.median)
    assert next(iter(evaluation.worst.values())).image.shape == SIZE


def test_pooled_evaluations_hold_all_films_and_show_the_worst_of_all(tmp_path):
    good = load_evaluation(evaluation_folder(tmp_path / "good"))
    bad = load_evaluation(evaluation_folder(tmp_path / "bad", sd=5 * SD_PX, seed=1))
    both = pooled([good, bad])
    assert [result.id for result in both.results] == 2 * [f"film{i}" for i in range(FILMS)]
    # Five times the error: the worst of all are those of the second.
    assert list(both.worst) == [FILMS + i for i in bad.worst]
    for i, picture in both.worst.items():
        np.testing.assert_array_equal(picture.image, bad.worst[i - FILMS].image)
    assert len(both.median) == 6
    assert set(both.median) <= {*good.median, *(FILMS + i for i in bad.median)}


def test_a_folder_without_an_evaluation_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"evaluation.npz does not exist; evaluate a network into"):
        load_evaluation(tmp_path)
    (tmp_path / FILE).write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize("name", ["la_lumbar", "ap_lumbar"])
def test_a_report_is_one_small_file_with_every_part(tmp_path, name):
    folder = evaluation_folder(tmp_path / "run", name)
    (folder / "robustness.csv").write_text(
        "network,kind,strength,median_px\none,noise,0,1\none,noise,5,2\none,blur,0,1\none,blur,1,3\n"
    )
    write_report(folder, folder / "report.html")
    page = (folder / "report.html").read_text()
    assert len(page) < 3e6
    for part in (
        "Summary",
        "Errors",
        "Measures",
        "Coverage",
        "Robustness",
        "largest errors",
        "ICC",
        "abc123",
        "≤ 2 mm",
    ):
        assert part in page, part
    assert "&lt;try&gt;" in page
    assert "<try>" not in page
    assert page.count('src="http') == page.count('href="http') == 0
    figures = json.loads((folder / "metrics.json").read_text())
    assert f"{figures['mre_mm']:.3g}" in page
    (folder / "robustness.csv").write_text("network,kind,strength,median_px\ntwo,noise,0,1\n")
    with pytest.raises(UserError, match=r"robustness.csv is of another network than the evaluation"):
        write_report(folder, folder / "report.html")


def test_a_better_run_is_called_better_and_an_equal_one_shows_no_significant_difference(tmp_path):
    first, good, again = (
        load_evaluation(evaluation_folder(tmp_path / name, sd=sd, seed=seed))
        for name, sd, seed in (("first", 2.0, 0), ("good", 0.5, 1), ("again", 2.0, 2))
    )
    radial, *measures = compare(first, good)
    assert (radial.verdict, radial.films) == ("better", FILMS)
    assert radial.p < 0.01
    assert radial.low < radial.mean < radial.high < 0
    assert radial.mean == pytest.approx(radial.second - radial.first)
    assert {"lumbar_lordosis", "slip_percent"} <= {d.what for d in measures}
    assert "good is better than first" in sentence(radial, "first", "good")
    assert compare(first, again)[0].verdict == "no significant difference"
    assert "no significant difference" in sentence(compare(first, again)[0], "first", "again")


def test_runs_on_other_films_or_other_labels_are_not_compared(tmp_path):
    one = load_evaluation(evaluation_folder(tmp_path / "one"))
    with pytest.raises(UserError, match="one run is of la_lumbar, the other of ap_lumbar"):
        compare(one, load_evaluation(evaluation_folder(tmp_path / "ap", "ap_lumbar")))
    renamed = [dataclasses.replace(result, id=f"other-{result.id}") for result in one.results]
    with pytest.raises(UserError, match="0 films of 0 patients in common"):
        compare(one, dataclasses.replace(one, results=renamed))
    moved = [dataclasses.replace(result, true_points=result.true_points + 1) for result in one.results]
    with pytest.raises(UserError, match="film0 has other labels"):
        compare(one, dataclasses.replace(one, results=moved))


def test_agreement_of_known_pairs():
    # Shrout and Fleiss, Psychological Bulletin 86, 1979: the ICC(2,1) of six targets and four judges is 0.29.
    judged = [(9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7)]
    assert icc(np.array(judged, float)) == pytest.approx(0.29, abs=0.005)
    first, second = np.array([9.0, 6, 8, 7, 10, 6]), np.array([2.0, 1, 4, 1, 5, 2])
    found = agreement(first, second)
    assert found.bias == pytest.approx(-31 / 6)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(second - first, ddof=1))
    assert agreement(first, first).icc == pytest.approx(1)
    assert np.isnan(agreement(np.ones(3), np.ones(3)).icc)
    with pytest.raises(ValueError, match="two pairs"):
        agreement(first[:1], second[:1])


@pytest.mark.parametrize("name", ["la_lumbar", "ap_whole_spine", "la_whole_spine"])
def test_an_images_page_and_its_json_say_the_same(tmp_path, name):
    film = drawn(name)[3]
    prediction = predicted(film, SD_PX, np.random.default_rng(5))
    found = interpret(
        prediction,
        SCHEMAS[name],
        film.image.shape,
        spacing_mm=film.spacing_mm,
        anterior_side=film.anterior_side,
        calibrated=calibrated(name),
    )
    page = film_page("<film>", film.image, found)
    assert "&lt;film&gt;" in page
    assert found.trusted is True
    assert "Do not trust" not in page
    write_measurement_report([image_report("film.png", found)], tmp_path / "readings.json")
    content = json.loads((tmp_path / "readings.json").read_text())
    told = MeasurementReport.model_validate(content).films[0]
    assert told.levels[SCHEMAS[name].levels[0]].regions is not None
    valued = [m for m in told.measures if m.value is not None]
    assert valued
    for measure in told.measures:
        assert (measure.value is None) == (measure.reason is not None)
    angles = [m for m in valued if m.unit == "deg" and m.interval is not None]
    assert angles
    for measure in angles:
        assert f"{measure.value:.1f}°" in page
        assert f"{measure.interval.low:.1f} to {measure.interval.high:.1f})" in page
    assert "90 %: " in page


def test_sagittal_alignment_has_intervals_around_what_was_drawn():
    film, name = drawn("la_whole_spine")[3], "la_whole_spine"
    prediction = predicted(film, SD_PX, np.random.default_rng(5))
    about = {"spacing_mm": film.spacing_mm, "anterior_side": film.anterior_side, "calibrated": calibrated(name)}
    found = interpret(prediction, SCHEMAS[name], film.image.shape, **about)
    by_name = {m.name: (m, i) for m, i in zip(found.measurements, found.intervals, strict=True)}
    page = film_page("film", film.image, found)
    for measure in ("cervical_lordosis", "thoracic_kyphosis_t1_t12", "thoracic_kyphosis_t4_t12", "lumbar_lordosis",
                    "t1_slope", "sacral_slope", "c7_sva_mm", "c7_sva_percent"):  # fmt: skip
        measurement, interval = by_name[measure]
        assert interval.low < measurement.value < interval.high
        assert f"<td>{NAMES[measure].short}</td><td>{measurement.at}</td>" in page


def test_a_film_unlike_the_good_ones_is_marked_on_its_page():
    known = calibrated("la_lumbar")
    strict = dataclasses.replace(known, trust=fit_trust([dict.fromkeys(SIGNS, -9.0)] * 99))  # everything is
    film = drawn("la_lumbar")[0]
    prediction = predicted(film, SD_PX, np.random.default_rng(0))
    found = interpret(prediction, SCHEMAS["la_lumbar"], SIZE, calibrated=strict)
    assert found.trusted is False
    page = film_page("film", film.image, found)
    assert "Do not trust these measurements" in page
    assert "the anterior side is not known" in page
    assert "the size of a pixel is not known" in page


def test_without_a_calibration_there_are_values_and_no_intervals():
    film = drawn("la_lumbar")[0]
    prediction = predicted(film, SD_PX, np.random.default_rng(0))
    presence = prediction.presence.copy()
    presence[0] = 0.1
    prediction = dataclasses.replace(prediction, presence=presence)
    found = interpret(prediction, SCHEMAS["la_lumbar"], SIZE, spacing_mm=film.spacing_mm, anterior_side="left")
    page = film_page("film", film.image, found)
    assert "90 %" not in page
    assert "L1 (10 %)" in page
    assert image_report("film", found).levels["L1"].corners == {}
    assert found.trusted is None


def test_a_refused_image_is_not_measured_and_says_why():
    points = np.full((6, 4, 2), np.nan)
    refused = dataclasses.replace(a_prediction(points), presence=np.zeros(6), doubts=("view",))
    found = interpret(refused, SCHEMAS["la_lumbar"], SIZE)
    page = film_page("film", np.zeros(SIZE, np.uint8), found)
    assert found.trusted is False
    assert "Nothing was measured:" in page
    assert "from another side than the network measures" in page
    assert "Curvature" not in page
    assert "Lateral radiograph" not in page
    assert image_report("film", found).doubts == ["view"]


def test_the_documented_schema_of_readings_is_the_one_that_is_written():
    documented = json.loads((REPOSITORY / "docs" / "readings.schema.json").read_text())
    assert documented == MeasurementReport.model_json_schema()


def test_a_calibration_file_is_read_back_and_a_broken_one_told(tmp_path):
    known, path = calibrated("la_lumbar"), tmp_path / "calibration.json"
    save_calibrated(known, path, {"films": 24})
    again = load_calibrated(path, SCHEMAS["la_lumbar"])
    assert again.calibration == known.calibration
    assert again.trust == known.trust
    with pytest.raises(UserError, match="of la_lumbar, the network predicts ap_lumbar"):
        load_calibrated(path, SCHEMAS["ap_lumbar"])
    path.write_text("{}")
    with pytest.raises(UserError, match=r"cannot be read \(about: Field required.*calibrate the network again"):
        load_calibrated(path, SCHEMAS["la_lumbar"])


def test_a_calibration_of_another_network_is_refused_when_named_and_left_when_found(tmp_path, caplog):
    path = tmp_path / "calibration.json"
    save_calibrated(calibrated("la_lumbar"), path, {"mark": "one"})
    checkpoint, schema = tmp_path / "checkpoints" / "best.pt", SCHEMAS["la_lumbar"]
    assert find_calibrated(None, checkpoint, schema, "one") is not None
    with pytest.raises(UserError, match="of other weights, another decoding"):
        find_calibrated(path, checkpoint, schema, "two")
    assert find_calibrated(None, checkpoint, schema, "two") is None
    assert "no intervals" in caplog.text


def test_films_of_patients_who_made_the_calibration_do_not_judge_it(tmp_path):
    path, schema = tmp_path / "calibration.json", SCHEMAS["la_lumbar"]
    films = [
        errors_of(result_of(film, predicted(film, SD_PX, np.random.default_rng(i)), i), schema)
        for i, film in enumerate(drawn("la_lumbar"))
    ]
    made = frozenset(patient_fingerprint(film.group) for film in films[:10])  # five patients, two films each
    save_calibrated(dataclasses.replace(calibrated("la_lumbar"), patients=made), path, {"mark": "one"})
    assert "patient1" not in path.read_text()
    judged = load_calibrated(path, schema).of_others(films)
    assert [film.group for film in judged] == [film.group for film in films[10:]]


def test_corrected_corners_have_no_intervals_and_are_judged_as_they_were_predicted():
    known, film = calibrated("la_lumbar"), drawn("la_lumbar")[0]
    prediction = predicted(film, SD_PX, np.random.default_rng(0))
    points = prediction.points_xy_image.copy()
    points[2] += (14, 4)  # L3 far beside its place
    moved = dataclasses.replace(prediction, points_xy_image=points)
    plain, corrected = (
        interpret(moved, SCHEMAS["la_lumbar"], SIZE, anterior_side="left", calibrated=known, correct_shape=correct)
        for correct in (False, True)
    )
    assert corrected.p_value == plain.p_value
    assert not any(corrected.intervals)
    assert corrected.regions is None
    here = film.points_xy_image[2].mean(axis=0)
    far = [np.linalg.norm(r.spine.points_xy_image[2].mean(axis=0) - here) for r in (plain, corrected)]
    assert far[1] < far[0]
    assert any("L3" in remark for remark in plain.remarks)
    assert "Corners were moved" in film_page("film", film.image, corrected)


def test_a_calibration_that_can_promise_nothing_leaves_no_infinities(tmp_path):
    known = calibrated("la_lumbar")
    empty = dataclasses.replace(
        known,
        calibration=dataclasses.replace(known.calibration, corner_factor=np.inf, level_factors={}, measures={}),
    )
    film = drawn("la_lumbar")[0]
    found = interpret(
        predicted(film, SD_PX, np.random.default_rng(0)), SCHEMAS["la_lumbar"], SIZE, calibrated=empty
    )
    write_measurement_report([image_report("film", found)], tmp_path / "readings.json")
    assert "they need a calibration" in film_page("film", film.image, found)


def test_rows_of_robustness_are_written_and_the_area_counts_pairs(tmp_path):
    rows = [
        Row("one", "noise", 0, "grey levels", 5, 1.0, 1.2, 0.0, 0.5),
        Row("one", "noise", 5, "grey levels", 5, 2.0, 2.2, 0.0, 0.9),
    ]
    write_rows(rows, tmp_path / "robustness.csv")
    with (tmp_path / "robustness.csv").open() as file:
        assert [row["median_px"] for row in csv.DictReader(file)] == ["1.0", "2.0"]
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)


# --- damage -----------------------------------------------------------------------------------------------


def without_traceback(folder, told=r"cannot be read|two evaluations"):
    with pytest.raises(UserError, match=told) as refused:
        write_report(folder, folder / "report.html")
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [{"mre_px": [1]}, {"mre_px_ci95": [1.0]}, {"per_level": {"L1": {}}}, {"sdr_px": {"2": "x"}}, {"coverage": {}}],
)
def test_figures_of_another_kind_are_refused_in_one_line(tmp_path, change):
    folder = evaluation_folder(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    write_json(metrics | change, folder / "metrics.json")
    without_traceback(folder, rf"metrics\.json: cannot be read \({next(iter(change))}")


def test_figures_that_are_no_json_are_refused_in_one_line(tmp_path):
    folder = evaluation_folder(tmp_path)
    for text in ("[" * 100_000, "{", "[]", '{"mre_px": NaN}'):
        (folder / "metrics.json").write_text(text)
        without_traceback(folder)


def test_halves_of_two_evaluations_are_not_put_together_and_training_images_are_said(tmp_path):
    folder = evaluation_folder(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"evaluation_sha256": checksum(folder / FILE), "training_images": 7}
    write_json(metrics, folder / "metrics.json")
    write_report(folder, tmp_path / "report.html")
    assert "7 of these images have trained the network" in (tmp_path / "report.html").read_text()
    newer = evaluation_folder(tmp_path / "newer", seed=1)
    (newer / FILE).replace(folder / FILE)  # as after a kill
    without_traceback(folder, r"metrics\.json and evaluation\.npz are of two evaluations; measure again")


def test_a_damaged_evaluation_is_refused_in_one_line(tmp_path):
    whole, rng = (evaluation_folder(tmp_path) / FILE).read_bytes(), np.random.default_rng(0)
    for at in rng.integers(0, 8 * len(whole), 100):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        (tmp_path / FILE).write_bytes(damaged)
        with contextlib.suppress(UserError):
            load_evaluation(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"worst": [FILMS]},
        {"median": [-1]},
        {"points": np.zeros((FILMS, 3, 4, 2))},
        {"presence": np.zeros(2)},
        {"group": ["a"]},
        {"schema": "tail"},
        {"version": "x"},
        {"picture_0": np.zeros(3), "worst": [0]},
    ],
)
def test_an_evaluation_whose_parts_do_not_fit_is_refused_in_one_line(tmp_path, change):
    path = evaluation_folder(tmp_path) / FILE
    with np.load(path) as content:
        arrays = dict(content)
    np.savez_compressed(path, **(arrays | change))
    with pytest.raises(UserError, match=r"evaluation\.npz cannot be read .*; evaluate again"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize("text", ["network,kind\none,a\n", "network,kind,strength,median_px\none,a,x,1\n"])
def test_a_damaged_table_of_robustness_is_refused_in_one_line(tmp_path, text):
    folder = evaluation_folder(tmp_path)
    (folder / "robustness.csv").write_text(text)
    without_traceback(folder, r"robustness\.csv: cannot be read")


def test_calibrations_that_a_red_team_made_are_refused_in_one_line():
    for path in field_case("red").glob("file_calibration_*.json"):
        with pytest.raises(UserError, match=r"cannot be read .*; calibrate the network again") as refused:
            load_calibrated(path, SCHEMAS["ap_whole_spine"])
        assert "\n" not in str(refused.value)
