"""Schemas name the corners that exist, in a fixed order; presence follows from the states."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vertebra_kp.core.anatomy import CORNERS, FLIPPED_CORNER, LEVELS, SCHEMAS, State, presence_target

EVERY_SCHEMA = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def test_levels_run_from_neck_to_sacrum():
    assert LEVELS[0] == "C1"
    assert LEVELS[-1] == "S1"
    assert [sum(level[0] == region for level in LEVELS) for region in "CTLS"] == [7, 12, 5, 1]


@pytest.mark.parametrize(
    ("name", "first", "last", "channels"),
    [
        ("ap_lumbar", "L1.TL", "L5.BR", 5 * 4),
        ("la_lumbar", "L1.TL", "S1.TR", 5 * 4 + 2),
        ("ap_whole_spine", "T1.TL", "L5.BR", 17 * 4),
        ("la_cervical", "C2.BL", "C7.BR", 5 * 4 + 2),
    ],
)
def test_schemas_have_the_channels_of_the_public_data_sets(name, first, last, channels):
    schema = SCHEMAS[name]
    assert schema.num_channels == len(schema.channel_names) == channels
    assert (schema.channel_names[0], schema.channel_names[-1]) == (first, last)


@EVERY_SCHEMA
def test_channels_run_level_by_level_in_corner_order(schema):
    names = [f"{level}.{corner}" for level in schema.levels for corner in CORNERS]
    absent = ("S1.BL", "S1.BR", "C2.TL", "C2.TR")
    assert list(schema.channel_names) == [name for name in names if name not in absent]


@EVERY_SCHEMA
def test_a_flip_swaps_left_and_right_of_the_same_level(schema):
    swapped = [name[:-1] + {"L": "R", "R": "L"}[name[-1]] for name in schema.channel_names]
    assert [schema.channel_names[k] for k in schema.flip_permutation] == swapped


def test_flipping_a_corner_twice_gives_it_back():
    assert [FLIPPED_CORNER[FLIPPED_CORNER[j]] for j in range(4)] == [0, 1, 2, 3]
    assert [CORNERS[j] for j in FLIPPED_CORNER] == ["TR", "TL", "BR", "BL"]


def test_only_frontal_films_may_be_mirrored():
    assert {schema.view for schema in SCHEMAS.values() if schema.flip_valid} == {"AP"}


@EVERY_SCHEMA
def test_gather_takes_each_channel_from_its_level_and_corner(schema):
    fixed = np.arange(schema.num_levels * 4 * 2).reshape(schema.num_levels, 4, 2)
    gathered = schema.gather(fixed)
    for k, name in enumerate(schema.channel_names):
        level, corner = name.split(".")
        np.testing.assert_array_equal(gathered[k], fixed[schema.levels.index(level), CORNERS.index(corner)])


@EVERY_SCHEMA
def test_scatter_undoes_gather_and_marks_what_does_not_exist(schema):
    channels = np.random.default_rng(3).normal(size=(schema.num_channels, 2)).astype(np.float32)
    fixed = schema.scatter(channels)
    assert fixed.dtype == np.float32
    np.testing.assert_array_equal(schema.gather(fixed), channels)
    np.testing.assert_array_equal(np.isnan(fixed).all(axis=-1), ~schema.exists)


def test_scatter_keeps_whatever_shape_follows_the_channel():
    schema = SCHEMAS["la_lumbar"]
    assert schema.scatter(np.zeros(22)).shape == (6, 4)
    assert schema.scatter(np.zeros((22, 2, 2))).shape == (6, 4, 2, 2)
    states = schema.scatter(np.full(22, State.LABELLED, np.int8), fill=State.NONEXISTENT)
    assert states[5].tolist() == [State.LABELLED, State.LABELLED, State.NONEXISTENT, State.NONEXISTENT]


def test_a_schema_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCHEMAS["ap_lumbar"].name = "other"


@pytest.mark.parametrize(
    ("corners", "presence"),
    [
        ("LLLL", 1.0),
        ("LOOO", 1.0),  # one corner in sight is enough
        ("LUUU", 1.0),
        ("LLNN", 1.0),  # S1
        ("OOOO", 0.0),
        ("NNNN", 0.0),
        ("OONN", 0.0),  # S1 below the film's edge
        ("UUUU", np.nan),
        ("OOOU", np.nan),  # the unlabelled one may be in sight
        ("UUNN", np.nan),
    ],
)
def test_presence_is_one_zero_or_unknown(corners, presence):
    state = {"U": State.UNLABELLED, "L": State.LABELLED, "O": State.OUTSIDE, "N": State.NONEXISTENT}
    target = presence_target(np.array([[state[c] for c in corners]], dtype=np.int8))
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, np.float32([presence]))


def test_presence_counts_only_the_corners_that_a_level_has():
    schema = SCHEMAS["la_cervical"]
    states = np.where(schema.exists, State.OUTSIDE, State.NONEXISTENT)
    np.testing.assert_array_equal(presence_target(states), np.zeros(6, np.float32))
    states[0, 2] = State.LABELLED  # C2.BL
    assert presence_target(states).tolist() == [1, 0, 0, 0, 0, 0]


@settings(deadline=None)
@given(arrays(np.int8, (6, 4), elements=st.integers(0, 3)))
def test_presence_does_not_depend_on_the_order_of_corners(states):
    np.testing.assert_array_equal(presence_target(states), presence_target(states[:, ::-1]))
