"""Pages escape what strangers wrote, and draw what they claim where they claim it."""

import json
import re

import cv2
import numpy as np
import pytest
from test_reports import SD_PX, SIZE, drawn, evaluation_folder, predicted

from vertebra_kp.audit.labels import Finding
from vertebra_kp.audit.page import write_page
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.record import Record
from vertebra_kp.measures import Measurement, Spine, measure
from vertebra_kp.reports.drawing import spine_drawing
from vertebra_kp.reports.evaluation import write_report
from vertebra_kp.reports.film_page import NAMES, film_page, number
from vertebra_kp.reports.interpretation import Interpretation, interpret

SCRIPT = "<script>alert('&\"')</script>"
LATERAL = SCHEMAS["la_lumbar"]


def scripts_in(page: str) -> int:
    return page.lower().count("<script")


def interpretation(film) -> Interpretation:
    return interpret(predicted(film, SD_PX, np.random.default_rng(0)), LATERAL, SIZE, anterior_side="left")


def test_a_script_in_a_file_name_does_not_run():
    film = drawn("la_lumbar")[0]
    page = film_page(SCRIPT, film.image, interpretation(film))
    assert scripts_in(page) == 0
    assert "&lt;script&gt;" in page


def hostile(value):
    """The same JSON with a script in every text; keys that name figures stay."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return f"{value}{SCRIPT}" if isinstance(value, str) else value


def test_a_script_in_metrics_does_not_run(tmp_path):
    folder = evaluation_folder(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"version": SCRIPT, "coverage_by": SCRIPT, "hardware": {SCRIPT: SCRIPT}, "checkpoint": SCRIPT}
    (folder / "metrics.json").write_text(json.dumps(hostile(metrics)))
    write_report(folder, folder / "report.html")
    page = (folder / "report.html").read_text()
    assert scripts_in(page) == 0
    assert page.count("&lt;script&gt;") > 5


def test_a_report_needs_nothing_but_the_films_of_an_evaluation(tmp_path):
    folder = evaluation_folder(tmp_path / "run")
    (folder / "metrics.json").write_text("{}")  # older runs lack what is measured today
    write_report(folder, folder / "report.html")
    assert "run: la_lumbar, 24 images" in (folder / "report.html").read_text()


def test_the_audits_page_escapes_names_and_findings_and_says_what_cannot_be_read(tmp_path):
    film = drawn("la_lumbar")[0]
    cv2.imwrite(str(tmp_path / "film.png"), film.image)
    good = Record(f"good{SCRIPT}", tmp_path / "film.png", "p", film.points_xy_image, film.states)
    gone = Record(f"gone{SCRIPT}", tmp_path / "<b>gone.png", "p", film.points_xy_image, film.states)
    findings = [Finding(good.id, "tall", "L2", 0.75, SCRIPT), Finding(gone.id, SCRIPT, SCRIPT, 0.5, "x")]
    write_page(tmp_path / "audit.html", f"Audit of {SCRIPT}", findings, [good, gone], LATERAL)
    page = (tmp_path / "audit.html").read_text()
    assert scripts_in(page) == 0
    assert "2 findings on 2 of 2 images" in page
    assert page.count("<svg") == 1
    assert "&lt;b&gt;gone.png" in page
    assert "width: 45px" in page  # 60 px is certain
    # Five bodies and the sacrum's line; only L2 is suspect.
    assert page.count('stroke="#ff6e28"') == 1
    assert page.count('stroke="#50c850"') == LATERAL.num_levels - 1


def test_every_measure_has_a_name():
    for name, schema in SCHEMAS.items():
        points = np.full((schema.num_levels, 4, 2), np.nan)
        measured = {m.name for m in measure(Spine(schema, points, (400, 200), 0.5, None))}
        assert measured <= NAMES.keys(), name


def test_numbers_have_the_digits_of_their_unit_and_no_minus_before_zero():
    assert [number(-0.04, "deg"), number(-0.06, "mm"), number(1.005, "ratio")] == ["0.0", "-0.1", "1.00"]


def test_a_large_image_is_shown_small_with_everything_at_its_place():
    # 2000 px become 1000: all coordinates are halved. Axes of a region are roots of its matrix's eigenvalues.
    points = np.full((LATERAL.num_levels, 4, 2), np.nan)
    points[1] = [(400, 600), (600, 620), (404, 760), (604, 780)]
    regions = np.full((LATERAL.num_levels, 4, 2, 2), np.nan)
    regions[1, 0] = np.diag([36.0, 100.0])
    spine = Spine(LATERAL, points, (2000, 1000), None, None)
    found = Interpretation(spine, np.ones(LATERAL.num_levels), [], [], regions)
    drawing = spine_drawing(np.zeros((2000, 1000), np.uint8), found)
    assert (drawing.width, drawing.height) == (500, 1000)
    (line,), (label,), (ellipse,) = drawing.lines, drawing.labels, drawing.ellipses
    np.testing.assert_allclose(line.points, [(200, 300), (300, 310), (302, 390), (202, 380)])
    assert line.closed
    assert (label.text, label.x, label.y) == ("L2", pytest.approx(251), pytest.approx(345))
    np.testing.assert_allclose([ellipse.centre, ellipse.radii], [(200, 300), (5, 3)])
    assert abs(ellipse.turn_deg) == pytest.approx(90)  # the longer axis runs down the image


def test_on_a_narrow_image_no_name_covers_another_and_angles_stand_beside_the_spine():
    whole = SCHEMAS["ap_whole_spine"]
    down = 300 + 25.0 * np.arange(whole.num_levels)
    points = np.zeros((whole.num_levels, 4, 2))
    points[..., 0] = np.array([138, 162, 138, 162])
    points[..., 1] = down[:, None] + np.array([0, 0, 20, 20])
    points[4:, 1::2, 1] += 2.0  # a tilt: the angles are above 0
    spine = Spine(whole, points, (1000, 300), None, None)
    found = Interpretation(spine, np.ones(whole.num_levels), measure(spine), [], None)
    drawing = spine_drawing(np.zeros((1000, 300), np.uint8), found)
    names = [label for label in drawing.labels if label.text in whole.levels]
    angles = [label for label in drawing.labels if label.text not in whole.levels]
    assert len(names) == whole.num_levels
    assert max(label.size for label in names) < 25
    assert angles
    for label in angles:  # a letter is at most 0.6 of the size wide
        half = 0.6 * label.size * len(label.text) / 2
        assert half <= label.x <= 300 - half
        assert label.x + half < 138 or label.x - half > 162


def test_a_grade_and_an_interval_stand_beside_their_value():
    film = drawn("la_lumbar")[0]
    spine = Spine(LATERAL, film.points_xy_image, SIZE, None, "left")
    slip = Measurement("slip_percent", "L5/S1", "%", 27.04, grade="II")
    none = Measurement("slip_percent", "L4/L5", "%", None, "no <b>reason</b>")
    page = film_page("film", film.image, Interpretation(spine, np.ones(6), [none, slip], [None, None]))
    text = re.sub(r"\s+", " ", page)
    assert "<td>L5/S1</td><td>27.0 %, Meyerding II" in text
    assert "L4/L5" not in text  # a row without a value
