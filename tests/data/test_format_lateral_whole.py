"""Lateral whole spines: names of points become levels and corners, a resized film is refused."""

import math

import numpy as np
import pytest
from marked_films import SIZE, check_faults, save
from shared_data import data_set

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.sources import read_records as read_source
from vertebra_kp.data.sources.lateral_whole import read_records
from vertebra_kp.data.sources.problems import SourceError

WHOLE, LUMBAR, NECK = (SCHEMAS[name] for name in ("la_whole_spine", "la_lumbar", "la_cervical"))
POINTS = {
    "C2BB": [5, 1.5], "C2BF": [9, 1], "T12TF": [12, 9],
    "L5TB": [10, 20], "L5TF": [21, 21], "L5BB": [11, 25], "L5BF": [20, 26.5], "S1TF": [22, 30],
}  # fmt: skip


def entry(points=POINTS, size=SIZE):
    return {"size": list(size), "points": points}


def test_points_become_corners_with_the_front_at_the_right(tmp_path):
    save(tmp_path, "points.json", {"a.png": entry()})
    (record,) = read_records(tmp_path, WHOLE)
    level = WHOLE.levels.index
    expected = np.full((25 - 1, 4, 2), np.nan)  # C2..C7, T1..T12, L1..L5, S1
    expected[level("C2"), 2:] = (5, 1.5), (9, 1)
    expected[level("T12"), 1] = 12, 9
    expected[level("L5")] = (10, 20), (21, 21), (11, 25), (20, 26.5)
    expected[level("S1"), 1] = 22, 30
    np.testing.assert_array_equal(record.points_xy_image, expected)
    np.testing.assert_array_equal(record.states == State.LABELLED, np.isfinite(expected[..., 0]))
    assert (record.id, record.group, record.anterior_side) == ("films/a.png", "films/a.png", "right")


def test_the_lumbar_spine_and_the_neck_are_cut_out_of_it(tmp_path):
    save(tmp_path, "points.json", {"a.png": entry(), "b.png": entry({"L1TB": [3, 4]})})
    whole = read_records(tmp_path, WHOLE)
    lumbar, neck = read_records(tmp_path, LUMBAR), read_records(tmp_path, NECK)
    for record, cut in zip(whole, lumbar, strict=True):
        np.testing.assert_array_equal(cut.points_xy_image, record.points_xy_image[-6:])
    assert [record.id for record in neck] == ["films/a.png"]  # the other shows no neck
    np.testing.assert_array_equal(neck[0].points_xy_image, whole[0].points_xy_image[:6])


def test_every_wrong_entry_is_named_with_its_place(tmp_path):
    faults = {
        "list.png": ([], "the entry of a film must be an object"),
        "none.png": ({"size": list(SIZE)}, "points must be an object, got None"),
        "level.png": (entry({"L6TB": [1, 2]}), "L6TB: no such point; write level, T or B, B or F, like L5TF"),
        "name.png": (entry({"L5FT": [1, 2]}), "L5FT: no such point"),
        "one.png": (entry({"L5TF": [1]}), "L5TF: the point must be [x, y], pixels"),
        "text.png": (entry({"L5TF": ["1", "2"]}), "L5TF: the point must be [x, y], pixels"),
        "nan.png": (entry({"L5TF": [math.nan, 2]}), "L5TF: the point must be [x, y], pixels"),
        "dens.png": (entry({"C2TB": [1, 2]}), "C2 has no TL in la_whole_spine"),
        "turned.png": (entry(size=SIZE[::-1]), "size must be the film's height and width, [40, 30], got [30, 40]"),
        "sizeless.png": ({"points": POINTS}, "[40, 30], got None"),
    }
    check_faults(read_records, tmp_path, "points.json", faults, WHOLE)


def test_another_anatomy_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"holds C2\.\.S1 of lateral films, got anatomy ap_lumbar"):
        read_records(tmp_path, SCHEMAS["ap_lumbar"])


def test_real_films_have_their_front_at_the_right_and_all_corners_but_one_film():
    records = read_source("lateral_whole", data_set("lateral_whole"), WHOLE)
    labelled = [(record.states == State.LABELLED).sum() for record in records]
    # C2 and S1 have two corners, the 22 levels between them four; one film shows the lumbar spine
    assert sorted(labelled) == [24] + [2 + 22 * 4 + 2] * 24
    for record in records:
        across = record.points_xy_image[:, 1] - record.points_xy_image[:, 0]
        assert (across[np.isfinite(across[:, 0]), 0] > 0).all()
