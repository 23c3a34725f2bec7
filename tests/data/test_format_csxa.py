"""CSXA: landmarks of the neck as labelme saved them, unknown names, the one known fault of the data set."""

import json

import numpy as np
import pytest
from test_format_coco import LA, check_damaged_files

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, State
from vertebra_kp.data.sources.csxa import read_records
from vertebra_kp.data.sources.problems import SourceError

NECK = SCHEMAS["la_cervical"]
WORDS = {"TL": "top left", "TR": "top right", "BL": "bottom left", "BR": "bottom right"}


def shape(label, *points, kind="point"):
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, "flags": {}}


def shapes():
    """All 23 landmarks, level by level 100.5 px apart."""
    made = [shape("C2 centroid", (5, 5))]
    for i, level in enumerate(NECK.levels):
        for j, corner in enumerate(CORNERS):
            if NECK.exists[i, j]:
                made.append(shape(f"{level} {WORDS[corner]}", (100.25 + 10 * j, 100.5 * i + j)))
    return made


def document(content):
    return {"version": "5.2.0", "flags": {}, "imagePath": "..\\a.png", "imageData": None, "shapes": content}


def save(root, content, name="0001035", film=True):
    for folder in ("datasets-PNG", "datasets-JSON"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if film:
        (root / f"datasets-PNG/{name}.png").touch()
    if content is not None:
        (root / f"datasets-JSON/{name}.json").write_text(json.dumps(content))


def test_landmarks_become_the_corners_of_their_level_and_side(tmp_path):
    content = shapes()
    assert len(content) == 23
    content[3]["shape_type"] = "polygon"
    save(tmp_path, document(content[::-1]))
    (record,) = read_records(tmp_path, NECK)
    expected = np.full((6, 4, 2), np.nan)
    for i in range(6):
        expected[i] = [(100.25 + 10 * j, 100.5 * i + j) for j in range(4)]
    expected[0, :2] = np.nan  # of C2 only the endplate below
    np.testing.assert_array_equal(record.points_xy_image, expected)
    assert record.points_xy_image.dtype == np.float32
    states = np.full((6, 4), State.LABELLED)
    states[0, :2] = State.NONEXISTENT
    np.testing.assert_array_equal(record.states, states)
    assert (record.id, record.image_path) == (
        "datasets-PNG/0001035.png",
        tmp_path / "datasets-PNG/0001035.png",
    )
    assert (record.group, record.spacing_mm, record.anterior_side, record.notes) == ("0001", None, "left", ())


def test_landmarks_that_are_missing_are_unlabelled_and_films_come_sorted(tmp_path):
    for name in ("0012061", "0003013"):
        save(tmp_path, document(shapes()[:-2]), name)
    records = read_records(tmp_path, NECK)
    names = [(record.image_path.stem, record.group) for record in records]
    assert names == [("0003013", "0003"), ("0012061", "0012")]
    assert records[0].states[5].tolist() == [State.LABELLED] * 2 + [State.UNLABELLED] * 2


def test_the_landmark_that_the_data_set_gives_twice_is_left_unlabelled(tmp_path):
    twice = document([*shapes(), shape("C3 top right", (7, 8))])
    save(tmp_path, twice, "2548130")
    (record,) = read_records(tmp_path, NECK)
    assert np.argwhere(record.states == State.UNLABELLED).tolist() == [[1, 1]]
    assert record.notes == ("C3.TR is given twice in the data set and left unlabelled",)
    save(tmp_path, document(shapes()), "2548130")  # mended
    (record,) = read_records(tmp_path, NECK)
    assert record.notes == ()
    assert (record.states == State.LABELLED).sum() == 22
    save(tmp_path, twice, "0001035")
    with pytest.raises(SourceError, match=r"0001035\.json: C3\.TR is given twice; keep one"):
        read_records(tmp_path, NECK)


FAULTS = [
    ([], "is no LabelMe file"),
    (document(["C3"]), "shapes[0]: a shape must be an object, got 'C3'"),
    (document([shape("C3 upper left", (1, 2))]), "shapes[0]: label must be a landmark like 'C3 top left'"),
    (document([shape("C8 top left", (1, 2))]), "got 'C8 top left'"),
    (document([shape("C1 top left", (1, 2))]), "got 'C1 top left'"),
    (document([shape("C3 centroid", (1, 2))]), "got 'C3 centroid'"),
    (document([shape(None, (1, 2))]), "got None"),
    (document([shape("C3 top left ", (1, 2))]), "got 'C3 top left '"),
    (document([shape("C3 top left", (1, 2), kind="circle")]), "must be point or polygon, got 'circle'"),
    (document([shape("C3 top left", (1, 2), (3, 4))]), "'C3 top left' must have one point, got 2"),
    (document([shape("C2 centroid")]), "'C2 centroid' must have one point, got 0"),
    (document([shape("C3 top left", (1, 1e7))]), "points must be a list of [x, y] in pixels"),
    (document([shape("C2 top left", (1, 2))]), "C2 has no TL in la_cervical; take C2.TL out"),
]


def test_every_problem_is_listed_at_once_with_its_file(tmp_path):
    for index, (content, _) in enumerate(FAULTS):
        save(tmp_path, content, f"00{index:02d}050")
    save(tmp_path, document(shapes()), "case 7")
    save(tmp_path, document(shapes()), "0100050", film=False)
    save(tmp_path, None, "0101050")
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, NECK)
    head, first, *lines = str(caught.value).splitlines()
    assert f"{len(FAULTS) + 3} problems; restore these files from the data set" in head
    assert "datasets-PNG/0101050.png: film without labels" in first
    for index, (line, (_, fault)) in enumerate(zip(lines, FAULTS, strict=False)):
        assert line.strip().startswith(f"datasets-JSON/00{index:02d}050.json: ")
        assert fault in line
    assert "film 'datasets-PNG/0100050.png' is not in" in lines[-2]
    assert "case 7.json: the name must be the number of the case and the age" in lines[-1]


def test_a_folder_or_an_anatomy_that_does_not_fit_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"must hold datasets-PNG and datasets-JSON; data\.root"):
        read_records(tmp_path, NECK)
    with pytest.raises(SourceError, match=r"csxa holds C2\.\.C7 of lateral films, got anatomy la_lumbar"):
        read_records(tmp_path, LA)
    save(tmp_path, None, film=False)
    with pytest.raises(SourceError, match=r"holds no \*\.json; unpack"):
        read_records(tmp_path, NECK)


def test_damaged_files_end_in_source_errors(tmp_path):
    content = document(shapes()[:3])
    save(tmp_path, content)
    path = tmp_path / "datasets-JSON/0001035.json"
    check_damaged_files(lambda _, schema: read_records(tmp_path, NECK), path, content)
