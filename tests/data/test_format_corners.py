"""Corners by side or by front and back: both become sides of the image, wrong entries are named."""

import math

import numpy as np
import pytest
from marked_films import check_faults, save
from shared_data import data_set

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.sources import read_records as read_source
from vertebra_kp.data.sources.corners import read_records
from vertebra_kp.data.sources.problems import SourceError

FRONTAL, LATERAL, WHOLE = (SCHEMAS[name] for name in ("ap_lumbar", "la_lumbar", "ap_whole_spine"))
QUAD = {"BR": [20, 9.5], "TL": [10, 5], "TR": [21.25, 5], "BL": [11, 9]}
ENDS = {"SA": [10, 5], "SP": [21, 6.5], "IA": [11, 9], "IP": [20, 10]}  # the front is at the left
LABELLED, UNLABELLED, NONEXISTENT = State.LABELLED, State.UNLABELLED, State.NONEXISTENT


def test_frontal_corners_go_to_their_level_and_side_and_other_levels_are_left_out(tmp_path):
    levels = {"T12": QUAD, "L2": QUAD, "L3": {"TL": [1, 2]}}
    save(tmp_path, "corners.json", {"a.png": {"levels": levels, "sure": 0.5, "note": "L3 faint"}})
    (record,) = read_records(tmp_path, FRONTAL)
    expected = np.full((5, 4, 2), np.nan)
    expected[1] = [(10, 5), (21.25, 5), (11, 9), (20, 9.5)]
    expected[2, 0] = 1, 2
    np.testing.assert_array_equal(record.points_xy_image, expected)
    np.testing.assert_array_equal(record.states == LABELLED, np.isfinite(expected[..., 0]))
    assert (record.id, record.group, record.anterior_side) == ("films/a.png", "films/a.png", None)
    assert record.notes == ("L3 faint",)
    (whole,) = read_records(tmp_path, WHOLE)
    np.testing.assert_array_equal(whole.points_xy_image[11], expected[1])


def test_front_and_back_become_the_sides_of_the_image(tmp_path):
    ends = {"left": ENDS, "right": {name: [40 - x, y] for name, (x, y) in ENDS.items()}}
    films = {
        f"{side}.png": {"anterior": side, "levels": {"L5": ends[side], "S1": {"SA": ends[side]["SA"]}}}
        for side in ("left", "right")
    }
    save(tmp_path, "corners.json", films)
    left, right = read_records(tmp_path, LATERAL)
    assert (left.anterior_side, right.anterior_side) == ("left", "right")
    np.testing.assert_array_equal(left.points_xy_image[4], [(10, 5), (21, 6.5), (11, 9), (20, 10)])
    # Mirrored: x turns to 40 - x, left to right
    np.testing.assert_array_equal(right.points_xy_image[4], [(19, 6.5), (30, 5), (20, 10), (29, 9)])
    assert left.states[5].tolist() == [LABELLED, UNLABELLED, NONEXISTENT, NONEXISTENT]
    assert right.states[5].tolist() == [UNLABELLED, LABELLED, NONEXISTENT, NONEXISTENT]


def test_films_without_a_corner_of_the_schema_are_skipped(tmp_path):
    save(tmp_path, "corners.json", {"a.png": {"levels": {"T12": QUAD}}, "b.png": {"levels": {"L1": QUAD}}})
    assert [record.id for record in read_records(tmp_path, FRONTAL)] == ["films/b.png"]
    save(tmp_path, "corners.json", {"a.png": {"levels": {"T12": QUAD}}})
    with pytest.raises(SourceError, match=r"no corner of ap_lumbar; check data\.anatomy"):
        read_records(tmp_path, FRONTAL)


def test_every_wrong_entry_of_a_frontal_film_is_named_with_its_place(tmp_path):
    faults = {
        "list.png": ([], "the entry of a film must be an object"),
        "none.png": ({}, "levels must be an object, got None"),
        "level.png": ({"levels": {"X1": QUAD}}, "X1: 'X1' names no level"),
        "quad.png": ({"levels": {"L1": [1, 2]}}, "L1: must be an object, got [1, 2]"),
        "end.png": ({"levels": {"L1": ENDS}}, "L1.SA: no such corner; write one of TL, TR, BL, BR"),
        "one.png": ({"levels": {"L1": {"TL": [1]}}}, "L1.TL: the corner must be [x, y], pixels"),
        "text.png": ({"levels": {"L1": {"TL": "1, 2"}}}, "L1.TL: the corner must be [x, y], pixels"),
        "nan.png": ({"levels": {"T11": {"BR": [1, math.nan]}}}, "T11.BR: the corner must be [x, y], pixels"),
        "twice.png": ({"levels": {"L1": QUAD, "l1": QUAD}}, "L1.TL is given twice; keep one"),
        "side.png": (
            {"anterior": "left", "levels": {"L1": ENDS}},
            "'left', so it is lateral; ap_lumbar is frontal",
        ),
        "note.png": ({"levels": {"L1": QUAD}, "note": ["x"]}, "note must be a text, got ['x']"),
    }
    check_faults(read_records, tmp_path, "corners.json", faults, FRONTAL)


def test_every_wrong_entry_of_a_lateral_film_is_named_with_its_place(tmp_path):
    faults = {
        "none.png": ({"levels": {"L1": ENDS}}, "anterior of a lateral film must be left or right"),
        "side.png": ({"anterior": "front", "levels": {"L1": ENDS}}, "(la_lumbar), got 'front'"),
        "kind.png": ({"anterior": ["left"], "levels": {"L1": ENDS}}, "(la_lumbar), got ['left']"),
        "quad.png": ({"anterior": "left", "levels": {"L1": QUAD}}, "L1.TL: no such corner; write one of SA, SP"),
        "S1.png": ({"anterior": "left", "levels": {"S1": ENDS}}, "S1 has no BL in la_lumbar"),
    }
    check_faults(read_records, tmp_path, "corners.json", faults, LATERAL)


def check_upright(records):
    """Named corners lie on the sides that they are named by, in most vertebrae: films are hardly tilted."""
    points = np.concatenate([record.points_xy_image for record in records])
    across, down = points[:, 1, 0] - points[:, 0, 0], points[:, 2, 1] - points[:, 0, 1]
    assert (across[np.isfinite(across)] > 0).all()
    assert (down[np.isfinite(down)] > 0).all()


def test_real_lateral_films_are_read():
    records = read_source("corners", data_set("lateral_lumbar"), LATERAL)
    assert len(records) == 18
    assert sum(record.anterior_side == "right" for record in records) == 4
    check_upright(records)


def test_real_frontal_films_are_read_with_and_without_the_lowest_ribs():
    root = data_set("lumbar_ap")
    lumbar, whole = (read_source("corners", root, schema) for schema in (FRONTAL, WHOLE))
    assert len(lumbar) == len(whole) == 12
    check_upright(whole)
    for few, many in zip(lumbar, whole, strict=True):
        np.testing.assert_array_equal(few.points_xy_image, many.points_xy_image[12:])
    assert sum(record.has_corners and (record.states[:12] == LABELLED).any() for record in whole) == 4
