"""Mendeley 5jdfdgp762: both kinds of labels, orders of corners, levels counted from the sacrum, patients."""

import json

import numpy as np
import pytest
from PIL import Image
from test_format_coco import AP, LA, check_damaged_files

from vertebra_kp.core.anatomy import State
from vertebra_kp.data.sources import buu_lspine
from vertebra_kp.data.sources.mendeley import COUNTED, original_name, read_records, without_buu_lspine
from vertebra_kp.data.sources.problems import SourceError

WIDTH, HEIGHT = 640, 700
HASH = "0123456789abcdef" * 2
NAME = f"3209-F-073Y1_jpg.rf.{HASH}"
# Which of TL, TR, BL, BR is stored first, second, ...
JSON_ORDER, TEXT_ORDER, PLAIN_ORDER = (2, 3, 0, 1), (0, 2, 3, 1), (0, 1, 2, 3)


def spine(n, *, lowest_edge=0.6):
    """Corners [n, 4, 2] from head to foot: the lowest tapers downwards and falls by 25 degrees to the left."""
    tilt = np.deg2rad(np.linspace(10, -25, n))
    body = np.array([(-40, -20), (40, -20), (-40, 20), (40, 20)], float)
    corners = np.empty((n, 4, 2))
    for i in range(n):
        own = body.copy()
        if i == n - 1:
            own[2:, 0] *= lowest_edge
        c, s = np.cos(tilt[i]), np.sin(tilt[i])
        corners[i] = own @ np.array([[c, s], [-s, c]]) + (300 + 3 * i, 60 + 55 * i)
    return corners.round(2)


def as_json(vertebrae, order=JSON_ORDER, v=1):
    """Pixel indices, so the centre of the first pixel is 0."""
    points = (vertebrae - 0.5)[:, order].round(2)
    boxes = [[*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()] for corners in points]
    keypoints = [[[x, y, v] for x, y in corners] for corners in points.tolist()]
    return {"boxes": boxes, "keypoints": keypoints, "labels": [0] * len(points)}


def as_text(vertebrae, order=TEXT_ORDER):
    lines = []
    for corners in (vertebrae / (WIDTH, HEIGHT))[:, order]:
        numbers = [0, *corners.mean(axis=0), *np.ptp(corners, axis=0)]
        for x, y in corners:
            numbers += [x, y, 1]
        lines.append(" ".join(repr(float(number)) for number in numbers))
    return "\n".join(lines) + "\n"


def save(root, label, name=NAME, part="train", film=True):
    """A film and its label: what is no text is saved as JSON."""
    folder = root / "Train/Keypointrcnn_data"
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    if film:
        Image.new("L", (WIDTH, HEIGHT)).save(folder / "images" / part / f"{name}.jpg")
    if label is not None:
        suffix, text = (".txt", label) if isinstance(label, str) else (".json", json.dumps(label))
        (folder / "labels" / part / f"{name}{suffix}").write_text(text)
    return folder


def expected(vertebrae):
    """The last six as L1..S1, without what S1 does not have."""
    points = np.full((6, 4, 2), np.nan)
    points[-len(vertebrae) :] = vertebrae[-6:]
    points[5, 2:] = np.nan
    return points


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [as_json, as_text])
@pytest.mark.parametrize("n", [2, 4, 5, 6, 8, 11])
def test_levels_are_counted_upwards_from_the_sacrum(tmp_path, kind, n):
    save(tmp_path, kind(spine(n)))
    (record,) = read_records(tmp_path, LA)
    points = expected(spine(n))
    np.testing.assert_allclose(record.points_xy_image, points, atol=0.01)
    states = np.where(np.isfinite(points[..., 0]), State.LABELLED, State.UNLABELLED)
    states[5, 2:] = State.NONEXISTENT
    np.testing.assert_array_equal(record.states, states)
    assert record.id == f"Train/Keypointrcnn_data/images/train/{NAME}.jpg"
    assert record.image_path == tmp_path / record.id
    assert (record.group, record.anterior_side, record.notes) == ("3209", "left", (COUNTED,))
    assert record.spacing_mm is None


@pytest.mark.parametrize("order", [JSON_ORDER, TEXT_ORDER, PLAIN_ORDER])
def test_each_known_order_of_corners_is_told_from_the_others(tmp_path, order):
    save(tmp_path, as_json(spine(6), order))
    (record,) = read_records(tmp_path, LA)
    np.testing.assert_allclose(record.points_xy_image, expected(spine(6)), atol=0.01)


def test_vertebrae_are_sorted_from_head_to_foot(tmp_path):
    save(tmp_path, as_json(spine(7)[[3, 6, 0, 5, 1, 4, 2]]))
    (record,) = read_records(tmp_path, LA)
    np.testing.assert_allclose(record.points_xy_image, expected(spine(7)), atol=0.01)


def test_anterior_is_where_the_sacrum_falls_to(tmp_path):
    mirrored = (spine(6) * (-1, 1) + (640, 0))[:, [1, 0, 3, 2]]
    save(tmp_path, as_json(mirrored))
    (record,) = read_records(tmp_path, LA)
    assert record.anterior_side == "right"
    np.testing.assert_allclose(record.points_xy_image, expected(mirrored), atol=0.01)


def test_corners_with_v_0_are_unlabelled_and_2_is_labelled(tmp_path):
    label = as_json(spine(6), PLAIN_ORDER, v=2)
    label["keypoints"][1][2] = [0, 0, 0]
    save(tmp_path, label)
    (record,) = read_records(tmp_path, LA)
    points = expected(spine(6))
    points[1, 2] = np.nan
    np.testing.assert_allclose(record.points_xy_image, points, atol=0.01)
    assert record.states[1].tolist() == [State.LABELLED, State.LABELLED, State.UNLABELLED, State.LABELLED]


def test_data_root_may_be_the_folder_of_the_films_or_stand_above_it(tmp_path):
    folder = save(tmp_path / "Dataset", as_json(spine(6)))
    save(tmp_path / "Dataset", as_text(spine(6)), "other", "val")
    for root in (tmp_path, tmp_path / "Dataset", tmp_path / "Dataset/Train", folder):
        first, second = read_records(root, LA)
        assert (first.image_path.stem, second.image_path.stem) == (NAME, "other")
    assert first.id == f"images/train/{NAME}.jpg"


# --- patients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "original", "group"),
    [
        (NAME, "3209-F-073Y1", "3209"),
        ("0001-M-037Y1", "0001-M-037Y1", "0001"),
        (f"N1-Olisthesis-L5-S1-F-34-yrs_jpg.rf.{HASH}", "N1-Olisthesis-L5-S1-F-34-yrs", "N1"),
        (f"N24-S-64-M_1001_0_jpg.rf.{HASH}", "N24-S-64-M_1001_0", "N24"),
        (f"PARS_19-3-2021-PNG1_jumbo_jpeg_jpg.rf.{HASH}", *["PARS_19-3-2021-PNG1_jumbo_jpeg"] * 2),
        (f"Screenshot-2.rf.{HASH}", *["Screenshot-2"] * 2),
    ],
)
def test_a_group_is_the_patient_or_the_film_before_it_was_exported(tmp_path, name, original, group):
    save(tmp_path, as_json(spine(6)), name)
    (record,) = read_records(tmp_path, LA)
    assert (original_name(record.id), record.group) == (original, group)


def test_copies_of_one_film_are_one_group(tmp_path):
    for part, digit in (("train", "0"), ("train", "1"), ("val", "2")):
        save(tmp_path, as_json(spine(6)), f"PARS_1_jpg.rf.{digit * 32}", part)
    assert [record.group for record in read_records(tmp_path, LA)] == ["PARS_1"] * 3


def write_buu(root, *names):
    (root / "LA").mkdir(parents=True)
    for name in names:
        (root / f"LA/{name}.jpg").touch()
        (root / f"LA/{name}.csv").write_text("1,2,3,4\n" * 11)


def test_films_of_buu_lspine_have_its_groups_and_can_be_left_out(tmp_path):
    for name in (NAME, f"0012-M-061Y1_jpg.rf.{HASH}", f"N1-F-3_jpg.rf.{HASH}", f"0012-M-062Y1_jpg.rf.{HASH}"):
        save(tmp_path / "films", as_json(spine(6)), name)
    write_buu(tmp_path / "buu", "0012-M-061Y1", "3209-F-073Y1", "0001-F-037Y1")
    records = read_records(tmp_path / "films", LA)
    groups = {original_name(record.id): record.group for record in records}
    for record in buu_lspine.read_records(tmp_path / "buu", LA)[1:]:
        assert groups[record.id] == record.group
    kept = without_buu_lspine(records, tmp_path / "buu")
    assert [original_name(record.id) for record in kept] == ["0012-M-062Y1", "N1-F-3"]
    with pytest.raises(SourceError, match="holds no film of BUU-LSPINE; name the folder"):
        without_buu_lspine(records, tmp_path)


# --- what is left out ----------------------------------------------------------------------------

SWAPPED = spine(6)
SWAPPED[2] = SWAPPED[2, [1, 0, 2, 3]]
UNCLEAR = {
    "one vertebra": (as_json(spine(1)), "it has 1 vertebrae"),
    "none": ({"boxes": [], "keypoints": []}, "no vertebra has four labelled corners"),
    "no line": ("\n", "no vertebra has four labelled corners"),
    "no sacrum": (as_json(spine(6, lowest_edge=1.0)), "must taper downwards to be S1"),
    "the second sacral vertebra": (
        as_json(np.concatenate([spine(6), spine(6)[5:] * (0.9, 1) + (30, 55)])),
        "must taper downwards to be S1",
    ),
    "a gap": (as_json(spine(7)[[0, 1, 2, 4, 5, 6]]), "a vertebra is missing"),
    "a gap between three": (as_json(spine(6)[[2, 4, 5]]), "a vertebra is missing"),
    "corners swapped in one": (as_json(SWAPPED), "in none of the orders BL, BR, TL, TR; TL, BL, BR, TR"),
    "another order": (as_json(spine(6), (3, 2, 1, 0)), "in none of the orders"),
    "all unlabelled": (as_json(spine(6), v=0), "no vertebra has four labelled corners"),
}


@pytest.mark.parametrize(("label", "reason"), UNCLEAR.values(), ids=UNCLEAR)
def test_a_film_whose_levels_nobody_can_tell_is_left_out_and_named(tmp_path, caplog, label, reason):
    save(tmp_path, as_json(spine(6)))
    save(tmp_path, label, "unclear")
    (record,) = read_records(tmp_path, LA)
    assert record.image_path.stem == NAME
    (warning,) = caplog.messages
    assert "levels of 1 films cannot be told, they are left out: unclear (" in warning
    assert reason in warning


def test_a_vertebra_without_any_corner_makes_a_film_unclear(tmp_path, caplog):
    label = as_json(spine(6))
    label["keypoints"][2] = [[0, 0, 0]] * 4
    save(tmp_path, label)
    with pytest.raises(SourceError, match="holds no film whose levels can be told"):
        read_records(tmp_path, LA)
    assert "a vertebra has no labelled corner" in caplog.text


# --- errors --------------------------------------------------------------------------------------


def changed(**changes):
    return as_json(spine(6)) | changes


def with_points(*points):
    label = as_json(spine(6))
    label["keypoints"][1] = list(points)
    return label


FAULTS = [
    ([], "must be an object with keypoints and boxes"),
    (changed(keypoints=None), "must be an object with keypoints and boxes"),
    (changed(boxes=[]), "lists of one entry per vertebra"),
    (with_points([1, 2, 1]), "keypoints[1] must be four points x, y, v, got [[1, 2, 1]]"),
    (with_points([1, 2, 1], [1, 2, 1], [1, 2], [1, 2, 1]), "keypoints[1] must be four points x, y, v, got [1, 2]"),
    (with_points([1, 2, 1], [1, 2, 1], [1, None, 1], [1, 2, 1]), "got [1, None, 1]"),
    (with_points([1, 2, 1], [1, 2, 1], [1, 1e7, 1], [1, 2, 1]), "got [1, 10000000.0, 1]"),
    (with_points([1, 2, 1], [1, 2, 1], [1, 3, 4], [1, 2, 1]), "v must be 0, 1 or 2, got [1.0, 4.0]"),
    ("0 1 2\n", "line 1 has 3 numbers, wanted 17"),
    ("\n0 " + "x " * 16, "line 2: could not convert string to float"),
    (as_text(spine(6)).replace(" 1.0", " nan"), "v must be 0, 1 or 2"),
    ("0 0.5 0.5 0.1 0.1" + " nan 0.5 1" * 4, "x, y of a labelled corner must be finite numbers"),
    (as_text(spine(6) * 100), "corners must be fractions of the film's width and height"),
]


def test_every_problem_is_listed_at_once_with_its_film(tmp_path):
    for index, (label, _) in enumerate(FAULTS):
        save(tmp_path, label, f"{index:02d}")
    folder = save(tmp_path, None, "alone", "val")
    save(tmp_path, as_json(spine(6)), "gone", "val", film=False)
    save(tmp_path, as_json(spine(6)), "twice", "val")
    save(tmp_path, as_text(spine(6)), "twice", "val")
    (folder / "images/val/text.jpg").write_text("no film")
    save(tmp_path, as_text(spine(6)), "text", "val", film=False)
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"{folder}: {len(FAULTS) + 4} problems; restore these from the data set" in head
    for index, (line, (_, fault)) in enumerate(zip(lines, FAULTS, strict=False)):
        assert line.strip().startswith(f"train/{index:02d}: ")
        assert fault in line
    others = "alone: wanted one label, found none", "gone: label without a film", "text: ", "twice.json, twice.txt"
    for line, fault in zip(lines[len(FAULTS) :], others, strict=True):
        assert fault in line


def test_a_folder_or_an_anatomy_that_does_not_fit_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"has no Train/Keypointrcnn_data with images and labels; data\.root"):
        read_records(tmp_path, LA)
    with pytest.raises(SourceError, match="got anatomy ap_lumbar; take la_lumbar"):
        read_records(tmp_path, AP)
    save(tmp_path, None, film=False)
    with pytest.raises(SourceError, match="holds no film whose levels can be told"):
        read_records(tmp_path, LA)


def test_damaged_files_end_in_source_errors(tmp_path):
    label = as_json(spine(2))
    folder = save(tmp_path, label)
    path = folder / f"labels/train/{NAME}.json"
    check_damaged_files(lambda _, schema: read_records(tmp_path, schema), path, label)
