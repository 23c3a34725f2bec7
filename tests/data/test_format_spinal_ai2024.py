"""Spinal-AI2024: corners without names, images in which a vertebra was skipped or labelled twice."""

import json
import math

import numpy as np
import pytest
from marked_films import check_faults, save
from shared_data import data_set

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.sources import read_records as read_source
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.sources.spinal_ai2024 import is_regular, read_records

LUMBAR, WHOLE = SCHEMAS["ap_lumbar"], SCHEMAS["ap_whole_spine"]


def quads(*tops):
    """Vertebrae 20 wide and 6 high whose superior endplates lie at ``tops``."""
    return [[10, y, 30, y + 1, 11, y + 6, 29, y + 7] for y in tops]


def test_corners_without_names_are_pixel_indices_from_head_to_foot(tmp_path):
    save(tmp_path, "quads.json", {"a.png": {"quads": quads(4, 12, 21), "cobb": [0.0, 4.0, 2.0]}})
    for schema in (LUMBAR, WHOLE):
        (record,) = read_records(tmp_path, schema)
        expected = [[(10.5, y + 0.5), (30.5, y + 1.5), (11.5, y + 6.5), (29.5, y + 7.5)] for y in (4, 12, 21)]
        np.testing.assert_array_equal(record.unnamed_xy_image, expected)
        assert record.unnamed_xy_image.dtype == np.float32
        assert np.isnan(record.points_xy_image).all()
        assert record.states.shape == (schema.num_levels, 4)
        assert (record.states == State.UNLABELLED).all()
        assert (record.id, record.group, record.centres_xy_image) == ("films/a.png", "films/a.png", None)
        assert record.is_partial


@pytest.mark.parametrize(
    ("tops", "regular"),
    [
        ((0, 10, 20, 30), True),
        ((0, 10, 25, 40), True),  # 1.5 times the step before
        ((0, 10, 25.5, 41), False),
        ((0, 15.5, 25.5, 35.5), False),  # 1.55 times the step after
        ((0, 10, 30, 40), False),  # one was skipped
        ((0, 10, 15, 20, 30), False),  # one was labelled twice
        ((30, 20, 10, 0), False),  # from foot to head
        ((0, 10), False),  # nothing to compare
    ],
)
def test_vertebrae_are_regular_where_no_step_is_much_longer_than_its_neighbour(tops, regular):
    corners = np.array(quads(*tops), dtype=float).reshape(-1, 4, 2)
    assert is_regular(corners) is regular


def test_irregular_images_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    entries = {"a.png": quads(4, 12, 20), "b.png": quads(4, 12, 28), "c.png": quads(4), "d.png": []}
    save(tmp_path, "quads.json", {name: {"quads": found} for name, found in entries.items()})
    assert [record.id for record in read_records(tmp_path, WHOLE)] == ["films/a.png"]
    assert "3 films with irregular vertebrae are left out" in caplog.text
    del entries["a.png"]
    save(tmp_path, "quads.json", {name: {"quads": found} for name, found in entries.items()})
    with pytest.raises(SourceError, match=r"no film with regular vertebrae; check quads\.json"):
        read_records(tmp_path, WHOLE)


def test_every_wrong_entry_is_named_with_its_place(tmp_path):
    sound = quads(4, 12)
    faults = {
        "list.png": ([], "the entry of a film must be an object"),
        "none.png": ({}, "quads must be a list, got None"),
        "seven.png": ({"quads": [*sound, [1] * 7]}, "quads[2]: must be x, y of TL, TR, BL and BR"),
        "text.png": ({"quads": [*sound, ["1"] * 8]}, "quads[2]: must be x, y"),
        "nan.png": ({"quads": [[math.nan] + [1] * 7, *sound]}, "quads[0]: must be x, y"),
        "number.png": ({"quads": [7]}, "quads[0]: must be x, y of TL, TR, BL and BR in pixel indices, got 7"),
    }
    check_faults(read_records, tmp_path, "quads.json", faults, WHOLE)


def test_a_lateral_anatomy_is_refused(tmp_path):
    with pytest.raises(SourceError, match="spinal_ai2024 holds frontal films, got anatomy la_lumbar"):
        read_records(tmp_path, SCHEMAS["la_lumbar"])


def test_real_images_lose_one_in_nine_and_tilt_as_their_angles_say():
    root = data_set("spinal_ai2024")
    records = read_source("spinal_ai2024", root, WHOLE)
    entries = json.loads((root / "quads.json").read_text())
    assert 0.85 < len(records) / len(entries) < 0.92
    for record in records[::20]:
        corners = record.unnamed_xy_image.astype(float)
        across = corners[:, 1] + corners[:, 3] - corners[:, 0] - corners[:, 2]
        tilts = np.rad2deg(np.arctan2(across[:, 1], across[:, 0]))
        assert np.ptp(tilts) == pytest.approx(max(entries[record.image_path.name]["cobb"]), abs=0.02)
