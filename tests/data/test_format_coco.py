"""COCO keypoints in and out: pixel indices, both conventions of categories, pycocotools, damaged files."""

import json
import warnings

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.record import LabelledFilm, label_arrays
from vertebra_kp.data.sources.coco import read_records
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.writers.coco import write

AP, LA, WHOLE = (SCHEMAS[name] for name in ("ap_lumbar", "la_lumbar", "ap_whole_spine"))

# --- what the tests of JSON formats share --------------------------------------------------------

REPLACEMENTS = (
    *(None, True, -1, 10**400, 1e308, float("nan"), "", "x", "../outside.png", "\0", "\ud800", "n" * 5000),
    *([], [[]], {}, {"id": 1}, ["x", 1], [{}]),
)


def damaged(node):
    """Copies of a JSON content in which one node is replaced or taken out."""
    yield from REPLACEMENTS
    if isinstance(node, dict):
        for key in node:
            yield {other: value for other, value in node.items() if other != key}
            yield from (node | {key: broken} for broken in damaged(node[key]))
    if isinstance(node, list):
        for i in range(len(node)):
            yield [*node[:i], *node[i + 1 :]]
            yield from ([*node[:i], broken, *node[i + 1 :]] for broken in damaged(node[i]))


def check_damaged_files(read, path, content):
    """Reading every damaged copy of a file ends in records that make sense, or in a SourceError."""
    ids = {record.id for record in read(path.parent, LA)}
    (path.parent.parent / "outside.png").touch()
    texts = [json.dumps(broken) for broken in damaged(content)]
    whole = json.dumps(content)
    texts += [whole[:end] for end in range(0, len(whole), 7)] + ["[" * 100_000, "[1" + ",1" * 100_000 + "]"]
    refused = longest = 0
    for text in texts:
        path.write_text(text)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                records = read(path.parent, LA)
            except SourceError as error:
                longest = max(longest, *map(len, str(error).splitlines()))
                refused += 1
                continue
        for record in records:
            assert record.id in ids
            labelled = record.states == State.LABELLED
            assert np.array_equal(labelled, np.isfinite(record.points_xy_image).all(axis=-1))
            assert (np.abs(record.points_xy_image[labelled]) < 2e6).all()
    assert refused > 200
    assert longest < 10_000


def one_film(schema=LA, **changes):
    """A film with every corner labelled: vertebrae of 39 x 29 px, one below the other."""
    points, states = label_arrays(schema)
    for i in range(schema.num_levels):
        points[i] = np.add([(50.5, 20.5), (89.5, 20.5), (50.5, 49.5), (89.5, 49.5)], (0, 60 * i))
    points[~schema.exists] = np.nan
    states[schema.exists] = State.LABELLED
    values = {"file": "a.png", "size": (401, 203), "group": "P7", "spacing_mm": 0.143} | changes
    return LabelledFilm(schema=schema, points_xy_image=points, states=states, **values)


# --- reading -------------------------------------------------------------------------------------

L1 = {"id": 3, "name": "L1", "keypoints": ["TL", "TR", "BL", "BR"]}
S1 = {"id": 8, "name": "S1", "keypoints": ["TL", "TR", "BL", "BR"]}
IMAGE = {"id": 1, "file_name": "a.png"}


def content(annotations, images=(IMAGE,), categories=(L1, S1)):
    return {"images": list(images), "categories": list(categories), "annotations": list(annotations)}


def annotation(keypoints, category_id=3, image_id=1):
    return {"image_id": image_id, "category_id": category_id, "keypoints": keypoints}


CORNERS_OF_L1 = [1, 2, 2, 30.25, 4, 1, 0, 0, 0, 31, 40, 2]


def write_json(root, value, name="annotations.json", films=("a.png",)):
    for film in films:
        (root / film).parent.mkdir(parents=True, exist_ok=True)
        (root / film).touch()
    (root / name).write_text(json.dumps(value), encoding="utf-8")


def test_keypoints_are_pixel_indices_and_v_0_is_unlabelled(tmp_path):
    write_json(tmp_path, content([annotation(CORNERS_OF_L1)]))
    (record,) = read_records(tmp_path, LA)
    expected = np.full((6, 4, 2), np.nan)
    expected[0, [0, 1, 3]] = (1.5, 2.5), (30.75, 4.5), (31.5, 40.5)
    np.testing.assert_array_equal(record.points_xy_image, expected)
    assert record.points_xy_image.dtype == np.float32
    states = np.full((6, 4), State.UNLABELLED)
    states[5, 2:] = State.NONEXISTENT
    states[0, [0, 1, 3]] = State.LABELLED
    np.testing.assert_array_equal(record.states, states)
    assert (record.id, record.image_path) == ("a.png", tmp_path / "a.png")
    assert (record.group, record.spacing_mm, record.anterior_side) == ("a.png", None, "left")


def test_one_category_may_hold_the_whole_spine(tmp_path):
    spine = {"id": 1, "name": "spine", "keypoints": ["S1.TR", "L1.TL", "L1_BR", "T12.TL", "S1.BL"]}
    keypoints = [9, 8, 2, 1, 2, 2, 0, 0, 0, 5, 6, 2, 0, 0, 0]
    write_json(tmp_path, content([annotation(keypoints, 1)], categories=[spine]))
    (record,) = read_records(tmp_path, LA)  # T12 is no level of the schema, S1.BL is not labelled
    np.testing.assert_array_equal(record.points_xy_image[5, 1], (9.5, 8.5))
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (1.5, 2.5))
    assert (record.states == State.LABELLED).sum() == 2
    (record,) = read_records(tmp_path, WHOLE)  # has no S1
    np.testing.assert_array_equal(record.points_xy_image[11, 0], (5.5, 6.5))
    assert record.anterior_side is None


def test_corners_come_in_the_order_that_the_category_says(tmp_path):
    turned = {"id": 3, "name": "l1 ", "keypoints": ["br", "BL", "TR", "TL"]}
    write_json(tmp_path, content([annotation([4, 4, 2, 3, 3, 2, 2, 2, 2, 1, 1, 2])], categories=[turned]))
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, :, 0], (1.5, 2.5, 3.5, 4.5))


def test_films_with_patient_and_spacing_come_sorted_and_films_without_labels_are_skipped(tmp_path):
    names = "z é.png", "sub folder/b.png", "empty.png", "hidden.png"
    images = [
        {"id": "z", "file_name": "./z é.png", "patient": " P 7 ", "spacing_mm": 0.143},
        {"id": 2, "file_name": "sub folder\\b.png", "patient": 12, "spacing_mm": None},
        {"id": 3, "file_name": "empty.png"},
        {"id": 4, "file_name": "hidden.png"},
    ]
    corners = [annotation(CORNERS_OF_L1, image_id=image) for image in ("z", 2)] + [
        annotation([0] * 12, image_id=4)
    ]
    write_json(tmp_path, content(corners, images), films=names)
    records = read_records(tmp_path, AP)
    assert [(record.id, record.group, record.spacing_mm) for record in records] == [
        ("sub folder/b.png", "12", None),
        ("z é.png", "P 7", 0.143),
    ]


def test_the_file_is_annotations_json_or_the_only_json(tmp_path):
    with pytest.raises(SourceError, match=r"data\.root must be a folder with annotations\.json .* found none"):
        read_records(tmp_path / "nowhere", AP)
    write_json(tmp_path, content([annotation(CORNERS_OF_L1)]), name="person_keypoints.json")
    assert len(read_records(tmp_path, AP)) == 1
    write_json(tmp_path, {}, name="other.json")
    with pytest.raises(SourceError, match=r"other\.json.*person_keypoints\.json"):
        read_records(tmp_path, AP)
    write_json(tmp_path, content([annotation(CORNERS_OF_L1)]))
    assert len(read_records(tmp_path, AP)) == 1


FAULTS = [
    ("categories", {"id": 3, "name": "L2", "keypoints": ["TL"]}, "id 3 stands above already"),
    (
        "categories",
        {"id": True, "name": "L2", "keypoints": ["TL"]},
        "id must be a whole number or a text, got True",
    ),
    ("categories", {"id": 20, "name": "L6", "keypoints": ["TL"]}, "'L6' names no level"),
    ("categories", {"id": 21, "name": 6, "keypoints": ["TL"]}, "name must be the level of TL, got 6"),
    ("categories", {"id": 22, "name": "spine", "keypoints": ["L1.TL", "nose"]}, "'nose' names no corner"),
    ("categories", {"id": 23, "name": "box"}, "keypoints of 'box' must be names like TL or L1.TL, got None"),
    ("categories", {"id": 24, "name": "L2", "keypoints": [1, 2]}, "got [1, 2]"),
    ("categories", 7, "must be an object, got 7"),
    ("images", {"id": 1, "file_name": "b.png"}, "id 1 stands above already"),
    ("images", {"file_name": "b.png"}, "id must be a whole number or a text, got None"),
    ("images", {"id": 20, "file_name": "absent.png"}, "film 'absent.png' is not in"),
    ("images", {"id": 21, "file_name": "../outside.png"}, "stay inside"),
    ("images", {"id": 22, "file_name": "/etc/hostname"}, "stay inside"),
    ("images", {"id": 23, "file_name": "C:\\a.png"}, "stay inside"),
    ("images", {"id": 24, "file_name": "link.png"}, "link to a place outside"),
    ("images", {"id": 25, "file_name": "n" * 500}, "too long"),
    ("images", {"id": 26, "file_name": 5}, "name of the film must be a text, got 5"),
    ("images", {"id": 27, "file_name": "./a.png"}, "film a.png stands in images[0] already; keep one"),
    ("images", {"id": 28, "file_name": "b.png", "patient": ["P"]}, "patient of 'b.png' must be a text"),
    ("images", {"id": 29, "file_name": "b.png", "spacing_mm": 0}, "spacing_mm of 'b.png' must be a number"),
    ("images", {"id": 30, "file_name": "b.png", "spacing_mm": "0.1"}, "got '0.1'"),
    ("annotations", annotation(CORNERS_OF_L1, image_id=99), "image_id 99 is no id in images"),
    ("annotations", annotation(CORNERS_OF_L1, image_id=[1]), "image_id [1] is no id in images"),
    ("annotations", annotation(CORNERS_OF_L1, category_id=99), "category_id 99 is no id in categories"),
    ("annotations", annotation(CORNERS_OF_L1[:-1]), "keypoints must be 12 numbers"),
    ("annotations", annotation("x"), "keypoints must be 12 numbers, x, y, v of each, got 'x'"),
    ("annotations", annotation([1, 2, 3, *[0] * 9]), "v of L1.TL must be 0, 1 or 2, got 3"),
    ("annotations", annotation([1, 2, True, *[0] * 9]), "v of L1.TL must be 0, 1 or 2, got True"),
    (
        "annotations",
        annotation([1, None, 2, *[0] * 9]),
        "x, y of L1.TL must be pixel indices up to 1e+06, got [1, None]",
    ),
    ("annotations", annotation([1, 10**400, 2, *[0] * 9]), "x, y of L1.TL must be pixel indices"),
    ("annotations", annotation([float("inf"), 1, 2, *[0] * 9]), "x, y of L1.TL must be pixel indices"),
    ("a.png", annotation([7, 7, 2, *[0] * 9]), "L1.TL is given twice; keep one"),
    (
        "a.png",
        annotation([*[0] * 6, 7, 7, 1, 0, 0, 0], category_id=8),
        "S1 has no BL in la_lumbar; take S1.BL out",
    ),
]


def test_every_problem_is_listed_at_once_with_its_place(tmp_path):
    root = tmp_path / "films"
    value = content([annotation(CORNERS_OF_L1)])
    # the annotations of a broken category or film are no faults of their own
    broken = [annotation(CORNERS_OF_L1, category_id=id) for id in range(20, 25)]
    broken += [annotation(CORNERS_OF_L1, image_id=20)]
    for place, entry, _ in FAULTS:
        value["annotations" if place == "a.png" else place].append(entry)
    value["annotations"] += broken
    write_json(root, value, films=("a.png", "b.png"))
    (tmp_path / "outside.png").touch()
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SourceError) as caught:
        read_records(root, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"annotations.json: {len(FAULTS) - 1} problems; correct these entries" in head  # a.png has two in one
    for place, _, fault in FAULTS:
        assert any(line.strip().startswith(place) and fault in line for line in lines), fault


def cvat_export(root, subsets, **changes):
    """As CVAT unpacks a project with these subsets, each with a film a.jpg of its own; L1.TL is its number."""
    for number, subset in enumerate(subsets):
        film = [annotation([number, 5, 2, *[0] * 9])]
        value = content(film, images=[IMAGE | {"file_name": "a.jpg"}]) | changes
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        write_json(root, value, f"annotations/person_keypoints_{subset}.json", [f"images/{subset}/a.jpg"])


@pytest.mark.parametrize("subsets", [["default"], ["Train", "Val"]])
def test_an_export_of_cvat_is_read_as_it_was_unpacked(tmp_path, subsets):
    cvat_export(tmp_path, subsets)
    records = read_records(tmp_path, AP)
    assert [record.id for record in records] == [f"images/{subset}/a.jpg" for subset in subsets]
    assert [record.points_xy_image[0, 0].tolist() for record in records] == [
        [number + 0.5, 5.5] for number in range(len(subsets))
    ]


def test_faults_in_several_files_of_an_export_are_named_with_their_file(tmp_path):
    cvat_export(tmp_path, ["Train", "Val"], annotations=[annotation([1, 2])])
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, AP)
    head, *lines = str(caught.value).splitlines()
    assert f"{tmp_path / 'annotations'}: 2 problems" in head
    assert [line.strip().split(": key")[0] for line in lines] == [
        f"person_keypoints_{subset}.json: annotations[0]" for subset in ("Train", "Val")
    ]


def test_what_is_no_corner_is_left_out_counted_and_named(tmp_path, caplog):
    more = [
        {"id": 20, "name": "implant", "keypoints": []},
        {"id": 21, "name": "pelvis", "keypoints": ["left", "right"]},
        {"id": 22, "name": "L9", "keypoints": ["TL"]},  # of no annotation
        {"id": 23, "name": "TL"},
    ]
    boxes = [annotation(None), annotation([], category_id=20), annotation([1, 1, 2, 3, 3, 2], category_id=21)]
    boxes[0].pop("keypoints")
    value = content([annotation(CORNERS_OF_L1), *boxes, boxes[1]], categories=[L1, *more])
    write_json(tmp_path, value)
    (record,) = read_records(tmp_path, AP)
    assert np.argwhere(record.states == State.LABELLED).tolist() == [[0, 0], [0, 1], [0, 3]]
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "1 annotations of category 3 without corners left out: annotations[1]",
        "2 annotations of category 20 without corners left out: annotations[2], annotations[4]",
        "1 annotations of category 21 without corners left out: annotations[3]",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"must be an object with images, categories and annotations, got \[\]"),
        ({}, "3 problems"),
        (content([], images=[]), "has no labelled corner"),
        (content([]), "has no labelled corner"),
    ],
)
def test_a_file_that_is_no_coco_says_so(tmp_path, value, message):
    write_json(tmp_path, value)
    with pytest.raises(SourceError, match=message):
        read_records(tmp_path, AP)


def test_an_annotation_file_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    write_json(tmp_path, content([annotation(CORNERS_OF_L1)]), name="elsewhere.json", films=("films/a.png",))
    (tmp_path / "films/annotations.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(SourceError, match="link to a place outside"):
        read_records(tmp_path / "films", AP)


def test_damaged_files_end_in_source_errors(tmp_path):
    value = content(
        [annotation(CORNERS_OF_L1), annotation([5, 6, 2, 7, 8, 2], 8)],
        images=[IMAGE | {"patient": "P7", "spacing_mm": 0.1}],
        categories=[L1, S1 | {"keypoints": ["S1.TL", "S1.TR"]}],
    )
    root = tmp_path / "films"
    write_json(root, value)
    check_damaged_files(read_records, root / "annotations.json", value)


# --- writing -------------------------------------------------------------------------------------


def test_a_vertebra_is_an_annotation_with_box_and_area(tmp_path):
    write([one_film(scores=np.full((6, 4), 0.25))], tmp_path)
    value = json.loads((tmp_path / "annotations.json").read_text())
    assert value["images"] == [
        {"id": 1, "file_name": "a.png", "width": 203, "height": 401, "patient": "P7", "spacing_mm": 0.143}
    ]
    assert [(category["name"], category["keypoints"]) for category in value["categories"]] == [
        (level, ["TL", "TR", "BL", "BR"]) for level in LA.levels
    ]
    assert len(value["annotations"]) == 6
    first, last = value["annotations"][0], value["annotations"][-1]
    # indices 50..89 by 20..49 are 40 x 30 pixels
    assert first["keypoints"] == [50, 20, 2, 89, 20, 2, 50, 49, 2, 89, 49, 2]
    assert (first["bbox"], first["area"], first["num_keypoints"]) == ([50, 20, 40, 30], 1200, 4)
    assert (first["iscrowd"], first["score"], first["image_id"]) == (0, 0.25, 1)
    # S1: one endplate is a row of pixels, not nothing
    assert last["keypoints"] == [50, 320, 2, 89, 320, 2, 0, 0, 0, 0, 0, 0]
    assert (last["bbox"], last["area"], last["num_keypoints"]) == ([50, 320, 40, 1], 40, 2)
    assert len({entry["id"] for entry in value["annotations"]}) == 6


def test_pycocotools_loads_what_is_written_and_evaluates_it(tmp_path):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = one_film(AP)
    moved = one_film(AP, scores=np.full((5, 4), 0.9))
    moved.points_xy_image[..., 0] += 2.8
    write([truth], tmp_path / "truth")
    write([moved], tmp_path / "moved")
    coco = COCO(str(tmp_path / "truth/annotations.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(AP.levels)
    assert coco.loadImgs(1)[0]["file_name"] == "a.png"
    for folder, expected in (("truth", 1.0), ("moved", 0.5)):
        results = json.loads((tmp_path / folder / "annotations.json").read_text())["annotations"]
        results = [{"score": 0.9} | result for result in results]  # films with labels have no score
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.full(4, 0.05)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        # OKS = exp(-d^2 / (2 (2 sigma)^2 area)) = exp(-2.8^2 / 24) = 0.72 passes 5 of the 10 thresholds 0.5..0.95
        assert evaluation.stats[0] == pytest.approx(expected, abs=1e-6)


def test_a_file_that_pycocotools_has_made_is_read(tmp_path):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content(
        [annotation(CORNERS_OF_L1) | {"id": 1, "bbox": [1, 2, 31, 39], "area": 1209, "iscrowd": 0}]
    )
    coco.createIndex()
    results = coco.loadRes([annotation([9, 8, 2, *[0] * 9]) | {"score": 0.5}])
    write_json(tmp_path, json.loads(json.dumps(results.dataset, default=float)))  # holds numpy's numbers
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (9.5, 8.5))
