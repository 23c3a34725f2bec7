"""Label Studio in and out: percent of the film, which film a task means, which annotation counts."""

import json
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from test_format_coco import AP, LA, WHOLE, check_damaged_files, one_film
from test_format_coco import write_json as write_json_named

from vertebra_kp.core.anatomy import State
from vertebra_kp.data.sources.annotations import PREDICTED
from vertebra_kp.data.sources.label_studio import read_records
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.writers.label_studio import write


def write_json(root, tasks, films=("a.png",), name="tasks.json"):
    write_json_named(root, tasks, name, films)


def region(label="L1.TL", x=10.0, y=20.0, **changes):
    """A keypoint as the program exports it; the film is 30 wide and 45 high."""
    return {
        "id": "hqudA4A3U4",
        "from_name": "kp-1",
        "to_name": "img-1",
        "type": "keypointlabels",
        "origin": "manual",
        "original_width": 30,
        "original_height": 45,
        "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.27, "keypointlabels": [label]},
    } | changes


def annotation(*regions, **changes):
    return {"id": 1001, "result": list(regions), "was_cancelled": False, "ground_truth": False} | changes


def task(*annotations, image="a.png", **changes):
    value = {"id": 7, "data": {"image": image}, "annotations": list(annotations), "predictions": [], "meta": {}}
    return value | changes


# --- reading -------------------------------------------------------------------------------------


def test_percent_of_the_film_are_continuous_coordinates(tmp_path):
    regions = region("L1.TL", 0, 0), region("L1.BR", 100, 100), region("S1.TR", 10, 20), region("T12.TL", 1, 1)
    write_json(tmp_path, [task(annotation(*regions))])
    (record,) = read_records(tmp_path, LA)
    expected = np.full((6, 4, 2), np.nan, np.float32)
    expected[0, 0], expected[0, 3], expected[5, 1] = (0, 0), (30, 45), (3, 9)
    np.testing.assert_array_equal(record.points_xy_image, expected)
    assert record.points_xy_image.dtype == np.float32
    states = np.full((6, 4), State.UNLABELLED)
    states[5, 2:] = State.NONEXISTENT
    states[[0, 0, 5], [0, 3, 1]] = State.LABELLED
    np.testing.assert_array_equal(record.states, states)
    assert (record.id, record.image_path, record.group) == ("a.png", tmp_path / "a.png", "a.png")
    assert (record.spacing_mm, record.anterior_side, record.notes) == (None, "left", ())


def test_patient_and_spacing_come_from_the_data_of_a_task(tmp_path):
    data = {"image": "a.png", "patient": "P 7", "spacing_mm": 0.143, "hospital": "x"}
    write_json(tmp_path, [task(annotation(region()), data=data)], name="project-1-at-2026-03-01.json")
    (record,) = read_records(tmp_path, AP)
    assert (record.group, record.spacing_mm) == ("P 7", 0.143)


@pytest.mark.parametrize(
    ("image", "film"),
    [
        ("sub/a b.png", "sub/a b.png"),
        ("sub\\a b.png", "sub/a b.png"),
        ("100%25.png", "100%25.png"),  # a plain path is not decoded
        ("/data/local-files/?d=sub/a%20b.png", "sub/a b.png"),
        ("/data/local-files/?d=sub%5Ca%20b.png", "sub/a b.png"),
        ("/data/local-files/?d=/mnt/films/sub/a%20b.png", "sub/a b.png"),
        ("/data/local-files/?d=c%2B%26%25d.png", "c+&%d.png"),
        ("/data/local-files/?d=anywhere/else/a.png", "a.png"),
        ("/data/local-files/?d=sub/a.png", "sub/a.png"),  # and not a.png
        ("/data/upload/a.png", "a.png"),
        ("/data/upload/12/0f3a9c21-a.png", "a.png"),
        ("/data/upload/12/0f3a9c21-kept.png", "0f3a9c21-kept.png"),
        ("/data/upload/12/0f3a9c21-%E6%A4%8E.png", "椎.png"),
    ],
)
def test_the_film_of_a_task_is_found_in_the_folder(tmp_path, image, film):
    films = (
        "sub/a b.png",
        "sub/a.png",
        "a.png",
        "c+&%d.png",
        "100%25.png",
        "0f3a9c21-kept.png",
        "kept.png",
        "椎.png",
    )
    write_json(tmp_path, [task(annotation(region()), image=image)], films)
    (record,) = read_records(tmp_path, AP)
    assert record.id == film


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("anywhere/a.png", "film 'anywhere/a.png' is not in"),  # a plain path is taken as it is
        ("0f3a9c21-a.png", "film '0f3a9c21-a.png' is not in"),
        ("/data/local-files/?d=0f3a9c21-a.png", "'0f3a9c21-a.png' of .* is not in"),
        ("/data/upload/1/0f3a9c2-a.png", "'0f3a9c2-a.png' of .* is not in"),
        ("/data/upload/1/../../a.png", "must lead to a film below"),
        ("/data/upload/1/%2e%2e/a.png", "must lead to a film below"),
        ("/data/local-files/?d=../a.png", "must lead to a film below"),
        ("/data/local-files/", "must lead to a film below"),
        ("/etc/hostname", "stay inside"),
        ("../outside.png", "stay inside"),
        ("link.png", "link to a place outside"),
        ("/data/local-files/?d=link.png", "link to a place outside"),
        ("https://example.org/a.png", "is an address"),
        ("s3://bucket/a.png", "is an address"),
        ("", "must be the film's path, got ''"),
        (None, r"must be the film's path, got None; the config names it \$image"),
        ("a/" * 5000, "must be the film's path"),
        ("n" * 1000, "too long"),
        ("/data/upload/" + "n" * 1000, "is not in"),
    ],
)
def test_a_film_that_is_not_in_the_folder_is_an_error(tmp_path, image, message):
    root = tmp_path / "films"
    write_json(root, [task(annotation(region()), image=image)])
    (tmp_path / "outside.png").touch()
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SourceError, match=message):
        read_records(root, AP)


def test_two_tasks_of_one_film_are_an_error(tmp_path):
    write_json(tmp_path, [task(annotation(region()), image=f"/data/upload/1/{i:08d}-a.png") for i in range(2)])
    with pytest.raises(SourceError, match=r"\[1\] task 7: film a\.png stands in \[0\] task 7 already; keep one"):
        read_records(tmp_path, AP)


def test_the_only_annotation_that_is_not_cancelled_counts(tmp_path):
    cancelled = annotation(region("L2.TL"), was_cancelled=True)
    predicted = [{"result": [region("L3.TL")], "model_version": "m", "score": 0.5}]
    write_json(tmp_path, [task(cancelled, annotation(region()), cancelled, predictions=predicted)])
    (record,) = read_records(tmp_path, AP)
    assert np.argwhere(record.states == State.LABELLED).tolist() == [[0, 0]]


def test_several_annotations_are_an_error_also_where_there_are_predictions(tmp_path):
    predicted = [{"result": [region()]}]
    twice = [annotation(region()), annotation(region())]
    tasks = [task(annotation(region())), task(*twice, image="b.png", predictions=predicted)]
    write_json(tmp_path, tasks, films=("a.png", "b.png"))
    with pytest.raises(SourceError, match=r"\[1\] task 7: 2 annotations that are not cancelled, wanted one"):
        read_records(tmp_path, AP)


@pytest.mark.parametrize(
    "skipped",
    [
        task(annotation(was_cancelled=True), image="b.png"),
        task(annotation(region(), was_cancelled=True), annotation(was_cancelled=True), image="b.png"),
        task(image="b.png", predictions=[{"result": [region()]}]),
        {"id": 7, "data": {"image": "b.png"}},
        task(image="film that was never copied.png"),
    ],
)
def test_tasks_that_are_skipped_or_not_labelled_are_left_out_and_counted(tmp_path, caplog, skipped):
    write_json(tmp_path, [skipped, task(annotation(region())), skipped], films=("a.png", "b.png"))
    assert [record.id for record in read_records(tmp_path, AP)] == ["a.png"]
    (message,) = caplog.messages
    assert message.endswith("2 tasks that nobody has labelled left out: [0] task 7, [2] task 7")


def test_regions_that_are_no_corner_are_left_out_and_counted(tmp_path, caplog):
    quality = {"id": "a", "from_name": "q", "to_name": "image", "type": "choices", "value": {"choices": ["good"]}}
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    others = [quality, relation, region(type="rectanglelabels"), region("femoral head")]
    write_json(tmp_path, [task(annotation(*others, region()))])
    (record,) = read_records(tmp_path, AP)
    assert np.argwhere(record.states == State.LABELLED).tolist() == [[0, 0]]
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "1 choices regions left out: a.png",
        "1 relation regions left out: a.png",
        "1 rectanglelabels regions left out: a.png",
        "1 keypointlabels regions ['femoral head'] left out: a.png",
    ]


def test_predictions_are_read_where_nobody_has_annotated_and_the_record_says_so(tmp_path):
    tasks = [
        {"data": {"image": "a.png"}, "predictions": [{"result": [region("L2.TL")]}]},
        task(image="b.png", predictions=[{"result": [region("L3.TL")]}]),
    ]
    write_json(tmp_path, tasks, films=("a.png", "b.png"))
    records = read_records(tmp_path, AP)
    assert [np.argwhere(record.states == State.LABELLED).tolist() for record in records] == [[[1, 0]], [[2, 0]]]
    assert [record.notes for record in records] == [(PREDICTED,)] * 2
    tasks[0]["predictions"] *= 2
    write_json(tmp_path, tasks)
    with pytest.raises(SourceError, match="2 predictions that are not cancelled, wanted one"):
        read_records(tmp_path, AP)


def test_films_without_a_corner_are_skipped(tmp_path):
    write_json(tmp_path, [task(annotation(region())), task(annotation(), image="b.png")], films=("a.png", "b.png"))
    assert [record.id for record in read_records(tmp_path, AP)] == ["a.png"]
    write_json(tmp_path, [task(annotation())])
    with pytest.raises(SourceError, match="no labelled corner"):
        read_records(tmp_path, AP)


FAULTS = [
    ({"image": "film_5.png", "kp": []}, "a task is an object with data"),
    (5, "a task is an object with data, got 5; export JSON, not JSON-MIN"),
    (task(annotations=None), "annotations must be a list of objects, got None"),
    (task(7), "annotations must be a list of objects, got 7"),
    (task(annotation(was_cancelled="no")), "was_cancelled must be true or false, got 'no'"),
    (task(annotation(result={})), "result must be a list, got {}"),
    (task(annotation(7)), "result[0]: a region must be an object, got 7"),
    (task(annotation(region(type=None))), "type must be a text, got None"),
    (task(annotation(region(), region("L6.TL"))), "result[1]: 'L6.TL' names no corner"),
    (task(annotation(region(value={"x": 1, "y": 2}))), "keypointlabels must be one label like L1.TL, got None"),
    (task(annotation(region(value={"keypointlabels": ["L1.TL", "L1.TR"]}))), "must be one label like L1.TL"),
    (task(annotation(region(original_width=0))), "L1.TL: original_width, original_height must be the film's size"),
    (task(annotation(region(original_height=None))), "got [30, None]"),
    (task(annotation(region(image_rotation=90))), "L1.TL: image_rotation must be 0, got 90; turn the film back"),
    (task(annotation(region(x="1"))), "L1.TL: x, y must be percent of the film, got ['1', 20.0]"),
    (task(annotation(region(y=float("nan")))), "got [10.0, nan]"),
    (task(annotation(region(x=10**400))), "x, y must be percent of the film"),
    (task(annotation(region(x=1e6, original_width=1e6))), "L1.TL lies at (1e+10, 9), beyond any film"),
    (task(annotation(region(), region(x=11))), "L1.TL is given twice; keep one"),
    (task(annotation(region("S1.BR"))), "S1 has no BR in la_lumbar; take S1.BR out"),
    (task(annotation(region("X.TL"), region(x=None))), "result[0]: 'X.TL' names no corner"),
    (task(annotation(region("X.TL"), region(x=None))), "result[1]: L1.TL: x, y must be percent"),
    (task(annotation(region()), data={"film": 5}), "name of the film must be a text, got 5"),
    (task(annotation(region()), data={"film": "../a.png"}), "stay inside"),
    (task(annotation(region()), data={"image": "a.png", "patient": {}}), "patient of 'a.png' must be a text"),
    (
        task(annotation(region()), data={"image": "a.png", "spacing_mm": -1}),
        "spacing_mm of 'a.png' must be a number",
    ),
]


def test_every_problem_is_listed_at_once_with_its_task(tmp_path):
    films = [f"film_{index}.png" for index in range(len(FAULTS))]
    tasks = []
    for film, (value, _) in zip(films, FAULTS, strict=True):
        image = isinstance(value, dict) and "data" in value and value["data"] == {"image": "a.png"}
        tasks.append(value | {"data": {"image": film}} if image else value)
    write_json(tmp_path, tasks, ("a.png", *films))
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"tasks.json: {len(FAULTS)} problems; correct these tasks" in head
    for index, (line, (_, fault)) in enumerate(zip(lines, FAULTS, strict=True)):
        assert line.strip().startswith(f"[{index}]")
        assert fault in line


@pytest.mark.parametrize("value", [{}, [], "x"])
def test_a_file_that_is_no_list_of_tasks_says_so(tmp_path, value):
    write_json(tmp_path, value)
    with pytest.raises(SourceError, match="must be a list of tasks"):
        read_records(tmp_path, AP)


def test_no_file_or_a_choice_of_files_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"tasks\.json or one \*\.json, found none"):
        read_records(tmp_path, AP)


@pytest.mark.parametrize("image", ["/data/upload/12/0f3a9c21-a.png", "/data/local-files/?d=films/a.png"])
def test_damaged_files_end_in_source_errors(tmp_path, image):
    tasks = [task(annotation(region(), region("S1.TR"), was_cancelled=False), image=image)]
    tasks[0]["data"] |= {"patient": "P7", "spacing_mm": 0.1}
    root = tmp_path / "films"
    write_json(root, tasks)
    check_damaged_files(read_records, root / "tasks.json", tasks)


def test_half_a_character_in_what_is_left_out_is_written_as_its_code(tmp_path, caplog):
    other = {"type": "choices\ud800", "value": {"choices": ["good"]}}
    root = tmp_path / "films"
    write_json(root, [task(annotation(region(), other))])
    read_records(root, AP)
    assert "choices\\ud800 regions left out" in caplog.text


# --- writing -------------------------------------------------------------------------------------


def test_a_task_holds_its_corners_as_one_prediction(tmp_path):
    folder = tmp_path / "films é"
    write([one_film(AP, file="sub folder/a+b.png", scores=np.full((5, 4), 0.25))], folder)
    (value,) = json.loads((folder / "tasks.json").read_text())
    image = value["data"].pop("image")
    assert image.startswith("/data/local-files/?d=")
    assert parse_qs(urlsplit(image).query) == {"d": ["films é/sub folder/a+b.png"]}
    assert value["data"] == {"film": "sub folder/a+b.png", "patient": "P7", "spacing_mm": 0.143}
    (prediction,) = value["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("vertebra_kp", 0.25)
    assert len(prediction["result"]) == 20
    first = prediction["result"][0]
    assert (first["original_width"], first["original_height"], first["score"]) == (203, 401, 0.25)
    assert first["value"]["keypointlabels"] == ["L1.TL"]
    assert first["value"]["x"] == pytest.approx(100 * 50.5 / 203)
    assert first["value"]["y"] == pytest.approx(100 * 20.5 / 401)
    assert len({entry["id"] for entry in prediction["result"]}) == 20


def test_films_with_labels_have_no_score(tmp_path):
    write([one_film()], tmp_path)
    (value,) = json.loads((tmp_path / "tasks.json").read_text())
    assert "score" not in value["predictions"][0]
    assert not any("score" in entry for entry in value["predictions"][0]["result"])


def test_an_export_after_correction_is_read_by_the_film_that_was_written(tmp_path):
    films = "sub/a.png", "films/a.png", "a.png"
    write([one_film(file="a.png")], tmp_path / "films")
    write_json(tmp_path / "films", [], films, name="untouched.json")
    (value,) = json.loads((tmp_path / "films/tasks.json").read_text())
    value |= {"id": 1, "annotations": [annotation(region(x=50, y=60))]}
    write_json(tmp_path / "films", [value], films)
    (record,) = read_records(tmp_path / "films", LA)
    assert record.id == "a.png"
    assert (record.group, record.spacing_mm) == ("P7", 0.143)
    np.testing.assert_allclose(record.points_xy_image[0, 0], (15, 27))
    assert (record.states == State.LABELLED).sum() == 1


def test_the_config_has_every_corner_of_the_films_once_from_head_to_foot(tmp_path):
    write([one_film(LA), one_film(WHOLE, file="b.png")], tmp_path)
    view = ElementTree.parse(tmp_path / "labelling_config.xml").getroot()
    image, labels = view
    assert (view.tag, image.tag, labels.tag) == ("View", "Image", "KeyPointLabels")
    assert image.get("value") == "$image"
    assert labels.get("toName") == image.get("name")
    values = [label.get("value") for label in labels]
    assert values == [*WHOLE.channel_names, "S1.TL", "S1.TR"]
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    used = [entry for value in tasks for entry in value["predictions"][0]["result"]]
    assert {entry["value"]["keypointlabels"][0] for entry in used} == set(values)
    assert {(entry["from_name"], entry["to_name"]) for entry in used} == {(labels.get("name"), image.get("name"))}
