"""Centres of vertebrae: they go to their level, corners stay unlabelled, wrong entries are named."""

import math

import numpy as np
import pytest
from marked_films import check_faults, save
from shared_data import data_set

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.sources import read_records as read_source
from vertebra_kp.data.sources.centres import read_records
from vertebra_kp.data.sources.problems import SourceError

LUMBAR, LATERAL, WHOLE = (SCHEMAS[name] for name in ("ap_lumbar", "la_lumbar", "ap_whole_spine"))
ENTRIES = {
    "b.png": {"centres": {"T12": [9, 2.5], "L1": [10, 8.25], "L3": [11, 20]}, "sure_T1": 0.9, "note": "no L2"},
    "a.png": {"centres": {"L5": [12.5, 36]}, "note": ""},
}


def test_centres_go_to_their_level_and_every_corner_is_unlabelled(tmp_path):
    save(tmp_path, "centres.json", ENTRIES)
    first, second = read_records(tmp_path, LUMBAR)
    assert (first.id, first.group, second.id) == ("films/a.png", "films/a.png", "films/b.png")
    assert second.image_path == tmp_path / "films/b.png"
    expected = np.full((5, 2), np.nan)  # T12 is no level of the schema
    expected[0], expected[2] = (10, 8.25), (11, 20)
    np.testing.assert_array_equal(second.centres_xy_image, expected)
    assert second.centres_xy_image.dtype == np.float32
    assert np.isnan(second.points_xy_image).all()
    assert (second.states == State.UNLABELLED).all()
    assert (first.notes, second.notes) == ((), ("no L2",))
    assert (second.anterior_side, second.unnamed_xy_image) == (None, None)
    assert second.is_partial
    assert not second.has_corners


def test_corners_that_do_not_exist_stay_so_on_lateral_films(tmp_path):
    save(tmp_path, "centres.json", ENTRIES)
    record = read_records(tmp_path, LATERAL)[0]
    assert record.states[5].tolist() == [State.UNLABELLED] * 2 + [State.NONEXISTENT] * 2
    assert record.anterior_side == "left"


def test_films_without_a_centre_of_the_schema_are_skipped(tmp_path):
    save(tmp_path, "centres.json", ENTRIES | {"c.png": {"centres": {"T3": [1, 2]}}})
    assert [record.id for record in read_records(tmp_path, LUMBAR)] == ["films/a.png", "films/b.png"]
    with pytest.raises(SourceError, match=r"no centre of la_cervical; check data\.anatomy"):
        read_records(tmp_path, SCHEMAS["la_cervical"])


def test_every_wrong_entry_is_named_with_its_place(tmp_path):
    faults = {
        "list.png": ([], "the entry of a film must be an object"),
        "none.png": ({}, "centres must be an object, got None"),
        "level.png": ({"centres": {"L6": [1, 2]}}, "L6: 'L6' names no level"),
        "one.png": ({"centres": {"L1": [1]}}, "L1: the centre must be [x, y], pixels up to 1e+06, got [1]"),
        "text.png": ({"centres": {"L1": ["1", 2]}}, "L1: the centre must be [x, y]"),
        "nan.png": ({"centres": {"T3": [math.nan, 2]}}, "T3: the centre must be [x, y]"),
        "far.png": ({"centres": {"L1": [1, 1e7]}}, "L1: the centre must be [x, y]"),
        "twice.png": ({"centres": {"L1": [1, 2], "l1": [1, 2]}}, "l1: is given twice; keep one"),
        "note.png": ({"centres": {"L1": [1, 2]}, "note": 7}, "note must be a text, got 7"),
    }
    check_faults(read_records, tmp_path, "centres.json", faults, LUMBAR)


def test_a_folder_without_the_file_or_with_another_content_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"data\.root must be a folder with centres\.json"):
        read_records(tmp_path, LUMBAR)
    (tmp_path / "centres.json").write_text("[1]")
    with pytest.raises(SourceError, match="must be an object with an entry for every film"):
        read_records(tmp_path, LUMBAR)


def test_real_whole_body_films_have_centres_from_head_to_foot():
    records = read_source("centres", data_set("wholebody_ap"), WHOLE)
    assert len(records) == 74
    known = [record.centres_xy_image[np.isfinite(record.centres_xy_image).all(axis=1)] for record in records]
    assert {len(centres) for centres in known} <= {16, 17}
    assert all((np.diff(centres[:, 1]) > 0).all() for centres in known)
