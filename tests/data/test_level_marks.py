"""Names of levels settled by a second reading: marks vote for an offset of the labels, which then move by it."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from vertebra_kp.config.schema import MARKED, DataConfig
from vertebra_kp.core.anatomy import SCHEMAS, UNKNOWN, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data import datasets, level_marks
from vertebra_kp.data.datasets import FilmSelection, records_of
from vertebra_kp.data.level_marks import (
    COMMITTED,
    LevelMarks,
    MarkedFilm,
    MarksError,
    label_offset,
    label_offsets,
    load_marks,
    rename_levels,
    settle_names,
    without_names,
)
from vertebra_kp.data.record import Record, label_arrays

SPINE, LUMBAR, LATERAL = (SCHEMAS[name] for name in ("ap_whole_spine", "ap_lumbar", "la_whole_spine"))
STEP = 31.0


def centre(level, offset=0):
    """Of a vertebra on a bent spine, ``offset`` levels below the one of this name."""
    place = SPINE.levels.index(level) + offset
    return 100 + 20 * np.sin(place / 5), 90 + STEP * place


def spine(offset=0):
    """Corners ``[17, 4, 2]`` whose labels stand ``offset`` levels too high."""
    corners = np.array([[-13, -9], [13, -9], [-13, 9], [13, 9]])
    return np.stack([np.add(centre(level, -offset), corners) for level in SPINE.levels]).astype(np.float32)


def record(points, id="film.jpg"):
    points = points.copy()
    states = np.where(np.isnan(points).any(axis=-1), State.UNLABELLED, State.LABELLED).astype(np.int8)
    return Record(id, Path(id), "p", points, states)


def reading(aside=0.0, **sureness):
    """Marks of the true vertebrae, ``aside`` px from their centres."""
    return {
        level: (centre(level)[0] + aside, centre(level)[1] + aside / 3, sure) for level, sure in sureness.items()
    }


def marked(*readings):
    return MarkedFilm(size=(700, 300), readings=list(readings))


def marks(**films):
    return LevelMarks(source="aasce", anatomy="ap_whole_spine", films=films)


@pytest.mark.parametrize("offset", [-3, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("level", ["T1", "T12", "L5"])
def test_a_mark_tells_by_how_many_levels_the_labels_stand_too_high(offset, level):
    # Also past either end of the labels: with labels too high, the true L5 lies below the last of them.
    assert label_offset(spine(offset), marked(reading(7.0, **{level: 0.5})), SPINE) == offset


def test_labels_that_are_missing_in_the_middle_count_as_levels():
    points = spine(1)
    points[[0, 7, 8]] = np.nan
    assert label_offset(points, marked(reading(T1=0.5, T12=0.8, L5=0.8)), SPINE) == 1


@pytest.mark.parametrize(("sure", "settled"), [(0.6, 0), (0.61, 0), (0.59, None)])
def test_sixty_percent_of_the_sureness_settles_a_name(sure, settled):
    one_below = {"L5": (*centre("L5", 1), 1 - sure)}
    assert label_offset(spine(), marked(reading(T12=sure), one_below), SPINE) == settled


@pytest.mark.parametrize("readings", [(), ({},), ({"L5": (100.0, 600.0, 0.0)},)])
def test_a_film_without_a_sure_mark_is_not_settled(readings):
    assert label_offset(spine(), marked(*readings), SPINE) is None


def test_a_film_of_fewer_than_two_labels_is_not_settled():
    points = np.full_like(spine(), np.nan)
    points[16] = spine()[16]
    assert label_offset(points, marked(reading(L5=1.0)), SPINE) is None


@pytest.mark.parametrize(("offset", "kept"), [(1, slice(0, 16)), (-1, slice(1, 17)), (2, slice(0, 15))])
def test_labels_that_are_off_move_to_their_levels_and_the_end_stays_open(offset, kept):
    slips = (np.arange(17) % 3).astype(np.int8)
    centres = spine(offset).mean(axis=1)
    wrong = replace(record(spine(offset)), slips=slips, centres_xy_image=centres)
    renamed = rename_levels(wrong, offset, SPINE)
    others = np.ones(17, bool)
    others[kept] = False
    np.testing.assert_array_equal(renamed.points_xy_image[kept], spine()[kept])
    np.testing.assert_allclose(renamed.centres_xy_image[kept], spine().mean(axis=1)[kept])
    assert (renamed.states[kept] == State.LABELLED).all()
    assert np.isnan(renamed.points_xy_image[others]).all()
    assert np.isnan(renamed.centres_xy_image[others]).all()
    assert (renamed.states[others] == State.UNLABELLED).all()
    assert (renamed.slips[others] == UNKNOWN).all()
    np.testing.assert_array_equal(renamed.slips[kept], np.roll(slips, -offset)[kept])
    np.testing.assert_array_equal(wrong.points_xy_image, spine(offset))  # what came is not changed


def test_corners_that_a_level_does_not_have_get_no_label():
    points, states = label_arrays(LATERAL)
    l5 = LATERAL.levels.index("L5")
    points[l5], states[l5] = spine()[16], State.LABELLED
    renamed = rename_levels(Record("a", Path("a"), "a", points, states), -1, LATERAL)
    assert renamed.states[-1].tolist() == [State.LABELLED] * 2 + [State.NONEXISTENT] * 2
    assert np.isnan(renamed.points_xy_image[-1, 2:]).all()
    assert (renamed.states[0, :2] == State.NONEXISTENT).all()


def test_a_film_that_is_not_settled_keeps_its_vertebrae_without_names():
    points = spine()
    points[4, 1] = np.nan  # three corners are no vertebra
    nameless = without_names(record(points), SPINE)
    assert (nameless.states == State.UNLABELLED).all()
    assert np.isnan(nameless.points_xy_image).all()
    np.testing.assert_array_equal(nameless.unnamed_xy_image, np.delete(spine(), 4, axis=0))


def test_a_film_without_labels_has_no_unnamed_vertebrae():
    assert without_names(record(np.full_like(spine(), np.nan)), SPINE).unnamed_xy_image is None


def test_records_are_settled_each_by_its_own_marks(caplog):
    disputed = marked(reading(L5=0.5), {"L5": (*centre("L5", 1), 0.5)})
    films = {"right": marked(reading(T1=0.9)), "off": marked(reading(L5=0.9)), "disputed": disputed}
    records = [record(spine(), "right"), record(spine(-1), "off"), record(spine(), "disputed")]
    records.append(record(spine(), "never marked"))
    assert label_offsets(records, marks(**films), SPINE) == {"right": 0, "off": -1}
    right, off, *nameless = settle_names(records, marks(**films), SPINE)
    assert right is records[0]
    np.testing.assert_array_equal(off.points_xy_image[1:], spine()[1:])
    assert [len(one.unnamed_xy_image) for one in nameless] == [17, 17]
    assert "2 of 4 films are not settled, their corners stay without names: disputed, never marked" in caplog.text


def test_marks_of_another_anatomy_are_refused():
    with pytest.raises(MarksError, match=r"labels of ap_whole_spine, got ap_lumbar; read ap_whole_spine"):
        settle_names([], marks(), LUMBAR)


def test_lumbar_levels_take_what_the_labels_call_t12(monkeypatch):
    # Labels a level too low: L5 stands on the sacrum, and T12 is what they call T11.
    read = [record(spine(-1), "off")]
    monkeypatch.setattr(datasets, "read_records", lambda source, root, schema: read if schema == SPINE else None)
    monkeypatch.setattr(datasets, "load_marks", lambda source: marks(off=marked(reading(L5=0.9))))
    (settled,) = records_of(FilmSelection("aasce", None, LUMBAR, names="settled"))
    np.testing.assert_array_equal(settled.points_xy_image, spine()[12:])


@pytest.mark.parametrize("changes", [{"stored_order": True}, {"part": "test"}])
def test_settled_names_are_for_the_labels_that_were_marked(changes, monkeypatch):
    read = [record(spine(-1), "off")]
    monkeypatch.setattr(datasets, "read_records", lambda *args, **more: read)
    assert records_of(FilmSelection("aasce", None, SPINE, names="settled", **changes)) == read


def test_a_source_without_marks_is_told(tmp_path):
    with pytest.raises(MarksError, match=r"csv: no such file and no committed name \(aasce\)"):
        load_marks("csv")


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ({"L6": [1, 2, 0.5]}, "level 'L6' is none of T1..L5"),
        ({"L5": [1, 2]}, "L5"),
        ({"L5": [1, 2, 1.5]}, "less than or equal to 1"),
        ({"L5": [-3, 2, 0.5]}, "greater than or equal to 0"),
        ({"L5": ["left", 2, 0.5]}, "valid number"),
    ],
)
def test_a_wrong_mark_is_told_with_its_film(tmp_path, mark, told):
    path = tmp_path / "own.json"
    film = {"size": [700, 300], "readings": [mark]}
    path.write_text(json.dumps({"source": "own", "anatomy": "ap_whole_spine", "films": {"a.jpg": film}}))
    with pytest.raises(UserError, match=rf"own\.json.*a\.jpg.*{told}"):
        load_marks(str(path))


def config(**data):
    splits = {"split_file": "aasce", "train_splits": ["fold1"], "validation_splits": ["fold0"]}
    return DataConfig.model_validate(
        {"source": "aasce", "anatomy": "ap_whole_spine", "names": "settled"} | splits | data
    )


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"source": "csv"}, "marked on aasce only, not on csv; set names to labels"),
        ({"source": "phantom"}, "not on phantom"),
        ({"stored_order": True}, "stored_order reads labels as they are, names changes them"),
        ({"shards": "s"}, "leave names out"),
    ],
)
def test_settled_names_go_with_marked_sources_only(data, told):
    with pytest.raises(ValidationError, match=told):
        config(**data)


def test_names_are_those_of_the_labels_unless_said_otherwise():
    assert DataConfig().names == "labels"
    selection = datasets.selection_of(config(repair_file="aasce"), ["fold1"])
    assert (selection.names, selection.repair_file) == ("settled", "aasce")


def test_the_config_knows_the_sources_whose_marks_are_committed():
    assert sorted(MARKED) == sorted(path.stem for path in COMMITTED.glob("*.json"))
    assert all(load_marks(source).source == source for source in MARKED)
    assert level_marks.COMMITTED.parent.name == "data"


# --- on the real films -----------------------------------------------------------------------------------


def aasce_root():
    beside = Path(__file__).parents[3] / "shared/data/aasce/boostnet_labeldata"
    root = Path(os.environ.get("VERTEBRA_KP_AASCE") or beside)
    if not root.is_dir():
        pytest.skip("AASCE is not at hand: VERTEBRA_KP_AASCE names no folder")
    return root


def test_real_aasce_labels_are_off_by_a_level_on_one_settled_film_in_five():
    records = records_of(FilmSelection("aasce", aasce_root(), SPINE, repair_file="aasce"))
    given = load_marks("aasce")
    assert {film.id for film in records} == given.films.keys()
    for film in records[::40]:
        with Image.open(film.image_path) as image:
            assert given.films[film.id].size == (image.height, image.width)
    off = Counter(abs(offset) for offset in label_offsets(records, given, SPINE).values())
    assert (off.total(), off[0], off[1]) == (463, 354, 102)
    settled = settle_names(records, given, SPINE)
    named = [film for film in settled if film.unnamed_xy_image is None and (film.states == State.LABELLED).any()]
    assert len(named) == 463
