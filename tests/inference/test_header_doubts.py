"""What the header of a DICOM file says against the network is doubted wherever results are shown."""

import dataclasses
import json

import numpy as np
import pytest
from commands import run
from one_prediction import a_prediction
from shared_data import field_case
from test_dicom import checkpoint, dicom, saved, twelve_bits

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.dicom import DicomInfo, read_header
from vertebra_kp.inference.doubts import MEANINGS, UNMEASURED, header_doubts
from vertebra_kp.inference.predictions import image_entry
from vertebra_kp.reports.interpretation import interpret

AP, LA, WHOLE = (SCHEMAS[name] for name in ("ap_lumbar", "la_lumbar", "ap_whole_spine"))


def doubts(tmp_path, schema, **elements):
    return header_doubts(read_header(saved(tmp_path / "film.dcm", dicom(twelve_bits(), **elements))), schema)


@pytest.mark.parametrize(
    ("schema", "elements"),
    [
        (AP, {}),
        (AP, {"ViewPosition": "AP", "PatientOrientation": ["L", "F"], "BodyPartExamined": "LSPINE"}),
        (AP, {"ViewPosition": "PA", "PatientOrientation": ["R", "F"], "Laterality": "U"}),
        (LA, {"ViewPosition": "LL", "PatientOrientation": ["A", "F"], "Laterality": "L"}),
        (LA, {"PatientOrientation": ["PL", "FA"], "BodyPartExamined": "LSSPINE"}),
        (WHOLE, {"BodyPartExamined": "CTSPINE", "PixelSpacing": [0.2, 0.2]}),
        (WHOLE, {"BodyPartExamined": "CHEST"}),  # shows the spine, too
        (AP, {"ViewPosition": "LLD"}),  # lying on the side: the beam may still come from the front
        (AP, {"BodyPartExamined": "MILLER", "ViewPosition": "JOHN", "PatientOrientation": ["RALPH", "F"]}),
    ],
)
def test_a_header_that_agrees_or_says_nothing_is_not_doubted(tmp_path, schema, elements):
    assert doubts(tmp_path, schema, **elements) == ()


@pytest.mark.parametrize(
    ("schema", "elements", "doubt"),
    [
        (AP, {"ViewPosition": "LL"}, "header: view"),
        (AP, {"ViewPosition": "RLO"}, "header: view"),
        (LA, {"ViewPosition": "PA"}, "header: view"),
        (LA, {"PatientOrientation": ["L", "F"]}, "header: view"),
        (AP, {"ViewPosition": "AP", "PatientOrientation": ["A", "F"]}, "header: view"),
        (AP, {"PatientOrientation": ["L", "H"]}, "header: orientation"),
        (AP, {"PatientOrientation": ["F", "R"]}, "header: orientation"),
        (AP, {"BodyPartExamined": "KNEE"}, "header: body part"),
        (AP, {"BodyPartExamined": "CSPINE"}, "header: body part"),
        (AP, {"ImageLaterality": "R"}, "header: laterality"),
        (AP, {"PixelSpacing": [0.2, 0.1]}, "pixels not square"),
        (AP, {"PixelAspectRatio": [4, 3]}, "pixels not square"),
    ],
)
def test_each_contradiction_is_a_doubt(tmp_path, schema, elements, doubt):
    assert doubts(tmp_path, schema, **elements) == (doubt,)
    assert MEANINGS[doubt]


def test_pixels_that_are_not_square_are_not_measured():
    body = np.array([[20, 1], [40, 2], [19, 8], [41, 9.0]])
    points = np.stack([body + np.array((0, 10 * i)) for i in range(LA.num_levels)])
    points[~LA.exists] = np.nan
    seen = {"spacing_mm": 0.2, "anterior_side": "left"}
    sound = interpret(a_prediction(points), LA, (64, 64), **seen)
    assert any(m.value is not None for m in sound.measurements)
    prediction = dataclasses.replace(a_prediction(points), doubts=("pixels not square",))
    assert "pixels not square" in UNMEASURED
    found = interpret(prediction, LA, (64, 64), **seen)
    assert all(m.value is None for m in found.measurements)
    assert found.trusted is False
    assert not found.measured


def test_predictions_have_doubts_and_notes_of_a_network_without_names_only_where_there_are_any():
    points = np.full((LA.num_levels, 4, 2), np.nan)
    assert not {"doubts", "notes"} & image_entry(a_prediction(points), LA, DicomInfo()).keys()
    doubted = dataclasses.replace(a_prediction(points), doubts=("header: view",))
    entry = image_entry(doubted, LA, DicomInfo(notes=("The window is odd",)))
    assert (entry["doubts"], entry["notes"]) == (["header: view"], ["The window is odd"])


def predicted(tmp_path, *films):
    """The terminal, predictions by name, and measurement reports by name, of the quickstart's lateral network."""
    out = tmp_path / "out"
    done = run(
        "predict",
        *films,
        "--network",
        checkpoint(tmp_path / "best.pt"),
        "--out",
        out,
        "--device",
        "cpu",
        "--report",
    )
    assert done.returncode == 0, done.stderr
    entries, reports = (
        json.loads((out / name).read_text())["films"] for name in ("predictions.json", "readings.json")
    )
    return done.stdout, *({one["file"].rpartition("/")[2]: one for one in ones} for ones in (entries, reports))


def test_doubts_and_notes_of_a_header_reach_predictions_reports_and_the_terminal(tmp_path):
    stored = twelve_bits(shape=(96, 96))
    films = [
        saved(tmp_path / "sound.dcm", dicom(stored, bits=12, ViewPosition="LL")),
        saved(tmp_path / "frontal.dcm", dicom(stored, bits=12, ViewPosition="AP", WindowCenter=9, WindowWidth=0)),
    ]
    told, entries, reports = predicted(tmp_path, *films)
    own = entries["sound.dcm"]["doubts"]  # random weights place corners as no spine has them
    assert own == ["implausible"]
    assert entries["frontal.dcm"]["doubts"] == reports["frontal.dcm"]["doubts"] == [*own, "header: view"]
    assert entries["frontal.dcm"]["notes"] == ["WindowWidth is 0: it is passed over"]
    assert "WindowWidth is 0: it is passed over" in reports["frontal.dcm"]["remarks"]
    assert reports["frontal.dcm"]["trusted"] is False
    assert "need a second opinion: 2 of 2 images" in told
    assert f"1 header: view: {MEANINGS['header: view']}" in told


def test_the_field_cases_are_doubted():
    folder = field_case("07_dicom_header_contradicts")
    assert header_doubts(read_header(folder / "upside_down.dcm"), WHOLE) == ("header: orientation",)
    assert header_doubts(read_header(folder / "lateral.dcm"), WHOLE) == ("header: view",)
