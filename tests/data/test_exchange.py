"""Labels and predictions travel between formats and come back as they were."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from commands import run
from marked_films import save as save_marks
from test_format_mendeley import NAME, as_json, save, spine, write_buu

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.exchange import films_of_predictions, films_of_records
from vertebra_kp.data.sources import SOURCES, read_records
from vertebra_kp.data.writers import WRITERS

LATERAL = SCHEMAS["la_lumbar"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films") / "mit Umlaut ä"
    done = run(
        "phantom", "--anatomy", "la_lumbar", "--preset", "hard", "--seed", 5, "--num-images", 4,
        "--size", 130, 71, "--out", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def labelled_points(records):
    return {
        record.id: np.where((record.states == State.LABELLED)[..., None], record.points_xy_image, np.nan)
        for record in records
    }


def test_every_writer_has_its_reader():
    assert set(WRITERS) <= set(SOURCES)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_phantom_folder_comes_back_from_every_format(phantoms, tmp_path, name):
    out = tmp_path / "out"
    done = run(
        "convert", "--source", "csv", "--root", phantoms, "--anatomy", "la_lumbar",
        "--to", name, "--copy-images", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (labelled_points(read_records(*of, LATERAL)) for of in (("csv", phantoms), (name, out)))
    assert before.keys() == after.keys()
    for film, points in before.items():
        np.testing.assert_allclose(after[film], points, atol=0.01)


def test_predictions_are_written_without_the_vertebrae_that_are_not_there(tmp_path):
    cv2.imwrite(str(tmp_path / "a film.png"), np.zeros((40, 30), np.uint8))
    corners = {"TL": [1, 2], "TR": [9.5, 2], "BL": [1, 8], "BR": [9, 8]}
    level = {"presence": 0.9, "corners": corners, "scores": dict.fromkeys(corners, 0.7), "covariances": {}}
    levels = {name: level for name in SCHEMAS["ap_lumbar"].levels} | {"L2": level | {"presence": 0.1}}
    film = {"file": str(tmp_path / "a film.png"), "size": [40, 30], "view": "AP", "levels": levels}
    film["spacing_mm"] = 0.2  # of a DICOM file
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({"films": [film]}))
    (predicted,) = films_of_predictions(path, tmp_path)
    assert predicted.file == "a film.png"
    assert predicted.spacing_mm == 0.2
    assert predicted.schema is SCHEMAS["ap_lumbar"]
    assert (predicted.states[1] == State.UNLABELLED).all()
    np.testing.assert_array_equal(predicted.points_xy_image[0, 1], (9.5, 2))
    with pytest.raises(UserError, match="does not lie in"):
        films_of_predictions(path, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"films": [1]}', '{"films": [{"view": "AP", "levels": {"X": {}}}]}']
)
def test_other_json_is_no_predictions(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UserError, match="not predictions"):
        films_of_predictions(tmp_path / "p.json", tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("corners", {"TL": 5}, "levels.L3.corners.TL: "),
        ("corners", {"TL": [1]}, "levels.L3.corners.TL"),
        ("corners", {"TL": [1, float("nan")]}, "levels.L3.corners.TL.1: "),
        ("corners", {"TL": [float("inf"), 1]}, "levels.L3.corners.TL.0: "),
        ("corners", {"TL": [1, 10**400]}, "levels.L3.corners.TL.1: "),
        ("corners", {"XX": [1, 1]}, "levels.L3.corners.XX"),
        ("presence", float("nan"), "levels.L3.presence: "),
        ("presence", -1, "levels.L3.presence: "),
        ("scores", {"TL": float("nan")}, "levels.L3.scores.TL: "),
        ("size", [-40, 30], "size.0: "),
        ("size", [40, 0], "size.1: "),
        ("size", 40, "size: "),
        ("spacing_mm", -0.1, "spacing_mm: "),
        ("spacing_mm", 0, "spacing_mm: "),
        ("spacing_mm", float("nan"), "spacing_mm: "),
        ("file", "", "file: "),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_their_place(tmp_path, place, value, said):
    levels = {level: {"presence": None, "corners": {}} for level in SCHEMAS["ap_lumbar"].levels}
    levels["L3"] = {"presence": 1.0, "corners": {"TL": [1, 2]}}
    film = {"file": str(tmp_path / "a.png"), "size": [40, 30], "view": "AP", "levels": levels}
    (film if place in ("size", "spacing_mm", "file") else levels["L3"])[place] = value
    (tmp_path / "p.json").write_text(json.dumps({"films": [film]}))
    with pytest.raises(UserError, match="not predictions") as refused:
        films_of_predictions(tmp_path / "p.json", tmp_path)
    _, *lines = str(refused.value).splitlines()
    assert f"films.0.{said}" in "\n".join(lines)


def test_a_corner_that_the_anatomy_lacks_is_refused(tmp_path):
    levels = {level: {"presence": 1.0, "corners": {}} for level in LATERAL.levels}
    levels["S1"]["corners"] = {"BL": [1, 2]}
    film = {"file": str(tmp_path / "a.png"), "size": [40, 30], "view": "LA", "levels": levels}
    (tmp_path / "p.json").write_text(json.dumps({"films": [film]}))
    with pytest.raises(UserError, match="S1 has no BL in la_lumbar"):
        films_of_predictions(tmp_path / "p.json", tmp_path)


def test_predictions_without_scores_are_labels(tmp_path):
    corners = {"TL": [1, 2], "TR": [9.5, 2]}
    levels = {level: {"presence": None, "corners": {}} for level in SCHEMAS["ap_lumbar"].levels}
    film = {"file": str(tmp_path / "a.png"), "size": [40, 30], "view": "AP", "levels": levels}
    levels["L3"] = {"presence": 1.0, "corners": corners}
    (tmp_path / "labels.json").write_text(json.dumps({"films": [film]}))
    (labelled,) = films_of_predictions(tmp_path / "labels.json", tmp_path)
    assert np.argwhere(labelled.states == State.LABELLED).tolist() == [[2, 0], [2, 1]]
    assert labelled.scores is None


def test_films_are_copied_below_the_folder_only(phantoms, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    film = sorted(phantoms.glob("*.png"))[0].name
    (out / film).symlink_to(tmp_path / "elsewhere.png")
    done = run(
        "convert", "--source", "csv", "--root", phantoms, "--anatomy", "la_lumbar",
        "--to", "coco", "--copy-images", "--out", out,
    )  # fmt: skip
    assert done.returncode == 1
    assert "through a link to" in done.stderr
    assert not (tmp_path / "elsewhere.png").exists()


def test_mendeley_is_converted_without_the_films_of_buu_lspine(tmp_path):
    mirrored = (spine(6) * (-1, 1) + (640, 0))[:, [1, 0, 3, 2]]
    save(tmp_path / "films", as_json(spine(6)))
    save(tmp_path / "films", as_json(mirrored), "N24-F-3")
    write_buu(tmp_path / "buu", NAME.partition("_")[0])
    done = run(
        "convert", "--source", "mendeley", "--anatomy", "la_lumbar", "--root", tmp_path / "films",
        "--to", "csv", "--out", tmp_path / "out",
        "--without-buu-lspine", tmp_path / "buu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 images written" in done.stdout
    assert "csv cannot say that 1 images have their anterior side at the right" in done.stderr
    table = (tmp_path / "out/labels.csv").read_text()
    assert "N24-F-3.jpg,N24,," in table
    assert NAME not in table


def test_films_of_buu_lspine_are_left_out_of_mendeley_only(phantoms, tmp_path):
    done = run(
        "convert", "--source", "csv", "--root", phantoms, "--anatomy", "la_lumbar",
        "--to", "coco", "--out", tmp_path / "out",
        "--without-buu-lspine", tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--without-buu-lspine is for --source mendeley" in done.stderr


def test_a_film_without_labels_is_not_written(phantoms):
    records = read_records("csv", phantoms, LATERAL)
    films = films_of_records(records, phantoms, LATERAL)
    assert [film.size for film in films] == [(130, 71)] * 4


def test_files_that_exist_are_never_replaced(phantoms, tmp_path):
    arguments = [
        "--source",
        "csv",
        "--root",
        phantoms,
        "--anatomy",
        "la_lumbar",
        "--copy-images",
        "--out",
        tmp_path,
    ]
    assert run("convert", *arguments, "--to", "labelme").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for to in ("labelme", "coco"):  # its own files, and the films
        refused = run("convert", *arguments, "--to", to)
        assert refused.returncode == 1
        assert "exists (4 files do); name another folder" in refused.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_format_cannot_say_is_told(phantoms, tmp_path):
    said = {}
    for to in ("labelme", "slicer", "coco"):
        arguments = ["--source", "csv", "--root", phantoms, "--anatomy", "la_lumbar", "--to", to]
        said[to] = run("convert", *arguments, "--out", tmp_path / to).stderr
    assert "which patient" in said["labelme"]
    assert "how large a pixel" in said["labelme"]
    assert "which patient" in said["slicer"]
    assert "how large" not in said["slicer"]
    assert "cannot say" not in said["coco"]


def test_centres_are_not_written_and_films_with_nothing_else_are_left_out(tmp_path, caplog):
    films = {"a.png": {"centres": {"L1": [9, 8]}}, "b.png": {"centres": {"L2": [9, 18]}}}
    save_marks(tmp_path, "centres.json", films)
    records = read_records("centres", tmp_path, LATERAL)
    points, states = records[0].points_xy_image.copy(), records[0].states.copy()
    points[0, 0], states[0, 0] = (3, 4), State.LABELLED
    mixed = [replace(records[0], points_xy_image=points, states=states), records[1]]
    (film,) = films_of_records(mixed, tmp_path, LATERAL)
    assert (film.file, film.labelled()) == ("films/a.png", [("L1", "TL", 3.0, 4.0)])
    assert "centres and unnamed vertebrae of 2 films are left out" in caplog.text


def test_unnamed_vertebrae_cannot_be_converted(tmp_path):
    quads = [[1, y, 9, y, 1, y + 4, 9, y + 4] for y in (1, 9, 17)]
    save_marks(tmp_path, "quads.json", {"a.png": {"quads": quads}})
    done = run(
        "convert", "--source", "spinal_ai2024", "--root", tmp_path, "--anatomy", "ap_lumbar",
        "--to", "csv", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 1
    assert "none of 1 films has a corner of ap_lumbar; there is nothing to write" in done.stderr
    assert not (tmp_path / "out").exists()
