"""Labels in the layout of predictions.json: states, predictions that say so, damaged files."""

import json

import numpy as np
import pytest
from test_format_coco import AP, LA, check_damaged_files, one_film, write_json

from vertebra_kp.core.anatomy import State
from vertebra_kp.data.exchange import films_of_predictions
from vertebra_kp.data.sources.annotations import PREDICTED
from vertebra_kp.data.sources.json import read_records
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.writers.json import write


def level(corners, **changes):
    return {"presence": 1.0, "corners": corners} | changes


def film(levels, **changes):
    return {"file": "a.png", "size": [90, 60], "view": "LA", "levels": levels} | changes


def save(root, *entries, films=("a.png",), name="labels.json"):
    write_json(root, {"films": list(entries)}, name, films)


def test_corners_states_patient_and_spacing_are_read(tmp_path):
    states = {"TL": "labelled", "TR": "outside", "BL": "nonexistent", "BR": "unlabelled"}
    levels = {
        "L1": level({"TL": [12.5, 8]}, states=states, presence=None),
        "S1": level({"TR": [3, 4]}),
        "T12": level({"TR": [3, 4]}),
    }
    save(tmp_path, film(levels, patient="P7", spacing_mm=0.143))
    (record,) = read_records(tmp_path, LA)
    expected = np.full((6, 4), State.UNLABELLED)
    expected[5, 2:] = State.NONEXISTENT
    expected[0, :3] = State.LABELLED, State.OUTSIDE, State.NONEXISTENT
    expected[5, 1] = State.LABELLED
    np.testing.assert_array_equal(record.states, expected)
    points = np.full((6, 4, 2), np.nan)
    points[0, 0], points[5, 1] = (12.5, 8), (3, 4)
    np.testing.assert_array_equal(record.points_xy_image, points)
    assert record.points_xy_image.dtype == np.float32
    assert (record.id, record.group, record.spacing_mm, record.notes) == ("a.png", "P7", 0.143, ())
    assert record.anterior_side == "left"


def test_films_without_anything_known_are_skipped_and_others_come_sorted(tmp_path):
    names = ("z.png", "sub é/a.png", "empty.png", "gone.png")
    unknown = film({"L1": level({}, states={"TL": "unlabelled"})}, file="empty.png")
    outside = film({"L1": level({}, states={"TL": "outside"})}, file="sub é/a.png")
    save(tmp_path, film({"L1": level({"TL": [1, 2]})}, file="z.png"), unknown, outside, films=names)
    assert [record.id for record in read_records(tmp_path, LA)] == ["sub é/a.png", "z.png"]
    save(tmp_path, unknown, films=names)
    with pytest.raises(SourceError, match="no labelled corner"):
        read_records(tmp_path, LA)


def test_predictions_say_so_and_levels_that_are_not_there_are_unlabelled(tmp_path):
    corners = {"TL": [1, 2], "TR": [9.5, 2]}
    scored = level(corners, scores=dict.fromkeys(corners, 0.7), covariances={})
    save(tmp_path, film({"L1": scored, "L2": scored | {"presence": 0.49}}), name="predictions.json")
    (record,) = read_records(tmp_path, LA)
    assert np.argwhere(record.states == State.LABELLED).tolist() == [[0, 0], [0, 1]]
    assert record.notes == (PREDICTED,)


def test_what_is_written_has_the_layout_of_predictions(tmp_path, monkeypatch):
    labelled = one_film(AP, file="sub é/a b.png")
    labelled.points_xy_image[0, 1] = 12.3456, 7.0004
    labelled.points_xy_image[1], labelled.states[1] = np.nan, State.UNLABELLED
    labelled.points_xy_image[2], labelled.states[2] = np.nan, State.OUTSIDE
    write([labelled], tmp_path)
    (entry,) = json.loads((tmp_path / "labels.json").read_text())["films"]
    assert (entry["file"], entry["size"], entry["view"]) == ("sub é/a b.png", [401, 203], "AP")
    assert list(entry["levels"]) == list(AP.levels)
    assert entry["levels"]["L1"]["corners"]["TR"] == [12.346, 7.0]
    assert [entry["levels"][name]["presence"] for name in ("L1", "L2", "L3")] == [1.0, None, 0.0]
    assert (entry["levels"]["L2"]["corners"], entry["levels"]["L3"]["states"]["TL"]) == ({}, "outside")
    monkeypatch.chdir(tmp_path)  # names in predictions.json are relative to where predict.py was called
    (read,) = films_of_predictions(tmp_path / "labels.json", tmp_path)
    assert (read.file, read.size, read.schema, read.scores) == ("sub é/a b.png", (401, 203), AP, None)
    np.testing.assert_array_equal(read.states == State.LABELLED, labelled.states == State.LABELLED)
    np.testing.assert_allclose(read.points_xy_image, labelled.points_xy_image, atol=0.01)


def test_scores_of_predictions_are_written_and_read(tmp_path, monkeypatch):
    write([one_film(AP, scores=np.full((5, 4), 0.25))], tmp_path)
    (tmp_path / "a.png").touch()
    (record,) = read_records(tmp_path, AP)
    assert record.notes == (PREDICTED,)
    monkeypatch.chdir(tmp_path)
    (read,) = films_of_predictions(tmp_path / "labels.json", tmp_path)
    np.testing.assert_array_equal(read.scores, np.full((5, 4), 0.25))


FAULTS = [
    (5, "a film must be an object, got 5"),
    (film({}, file=None), "name of the film must be a text, got None"),
    (film({}, file="absent.png"), "film 'absent.png' is not in"),
    (film({}, file="/etc/hostname"), "stay inside"),
    (film({}, spacing_mm=0), "spacing_mm of 'b.png' must be a number above 0"),
    (film(None), "levels must be an object, got None"),
    (film({"L6": level({})}), "L6: 'L6' names no level"),
    (film({"L1": 7}), "L1: must be an object, got 7"),
    (film({"L1": level(None)}), "corners must be an object with TL, TR, BL, BR, got None"),
    (film({"L1": level({"XX": [1, 2]})}), "corners must be an object with TL, TR, BL, BR, got {'XX'"),
    (film({"L1": level({}, states=[])}), "states must be an object with TL, TR, BL, BR, got []"),
    (film({"L1": level({}, states={"TL": "seen"})}), "state of TL must be one of unlabelled, labelled"),
    (film({"L1": level({}, states={"TL": ["labelled"]})}), "got ['labelled']"),
    (film({"L1": level({}, states={"TL": "labelled"})}), "TL is labelled, which does not fit position None"),
    (film({"L1": level({"TL": [1, 2]}, states={"TL": "outside"})}), "TL is outside, which does not fit position"),
    (film({"L1": level({"TL": [1]})}), "L1.TL must be [x, y], pixels up to 1e+06, got [1]"),
    (film({"L1": level({"TL": [1, 1e7]})}), "L1.TL must be [x, y]"),
    (film({"L1": level({"TL": [1, None]})}), "L1.TL must be [x, y]"),
    (film({"L1": level({"TL": [1, 2]}, scores={}, presence="1")}), "presence must be a number or null, got '1'"),
    (film({"S1": level({"BL": [1, 2]})}), "S1 has no BL in la_lumbar; take S1.BL out"),
    (film({"L1": level({"TL": [1, 2]}), "l1": level({"TL": [1, 2]})}), "L1.TL is given twice; keep one"),
]


def test_every_problem_is_listed_at_once_with_its_film(tmp_path):
    entries = []
    for index, (value, _) in enumerate(FAULTS):
        own_name = isinstance(value, dict) and value["file"] == "a.png"
        name = "b.png" if isinstance(value, dict) and "spacing_mm" in value else f"film_{index}.png"
        entries.append(value | {"file": name} if own_name else value)
    names = ["b.png", *(f"film_{index}.png" for index in range(len(FAULTS)))]
    save(tmp_path, *entries, film({}, file="film_5.png"), films=names)
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"labels.json: {len(FAULTS) + 1} problems; correct these films" in head
    for index, (line, (_, fault)) in enumerate(
        zip(lines, [*FAULTS, (None, "stands in films[5] already; keep one")], strict=True)
    ):
        assert line.strip().startswith(f"films[{index}]: ")
        assert fault in line


@pytest.mark.parametrize("value", [[], {}, {"films": {}}, "x"])
def test_a_file_of_another_layout_says_so(tmp_path, value):
    write_json(tmp_path, value, "labels.json")
    with pytest.raises(SourceError, match="must be an object with films, a list"):
        read_records(tmp_path, LA)


def test_damaged_files_end_in_source_errors(tmp_path):
    levels = {"L1": level({"TL": [1, 2]}, states={"TL": "labelled", "TR": "outside"}), "S1": level({"TR": [5, 6]})}
    scored = {"L2": level({"BR": [3, 4]}, scores={"BR": 0.5})}
    root = tmp_path / "films"
    save(root, film(levels | scored, patient="P7", spacing_mm=0.1))
    check_damaged_files(read_records, root / "labels.json", json.loads((root / "labels.json").read_text()))
