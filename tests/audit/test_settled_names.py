"""Settled names judged beside the labels, on the same pairs of images."""

import csv
import os
from pathlib import Path

import pytest
from commands import run

from vertebra_kp.audit.level_agreement import Pair
from vertebra_kp.audit.settled_names import count_contradictions, read_compared
from vertebra_kp.core.errors import UserError

REPOSITORY = Path(__file__).parents[2]
STUDY = REPOSITORY / "experiments" / "14_level_names"


def pair(group, first, second, by_labels, clear=True):
    return Pair(group, first, second, by_labels, 0.5, 0.2 if clear else 0.01, clear, None)


def test_settled_names_are_judged_by_what_pairs_say_of_the_labels():
    pairs = [
        # L2 in a1 is L1 in a2: the labels of a1 stand a level too high, which was settled so.
        pair("a", "a1", "a2", 1.125),
        # The second reading moves b2, whose labels the images confirm.
        pair("b", "b1", "b2", 0.0),
        # Both are moved alike.
        pair("c", "c1", "c2", -0.25),
        # Half a level is no level; a hair more is.
        pair("d", "d1", "d2", 0.5),
        pair("d", "d1", "d3", -0.625),
        # Not clear, and not settled: neither tells.
        pair("e", "e1", "e2", 2.0, clear=False),
        pair("f", "f1", "f2", 2.0),
    ]
    offsets = dict.fromkeys(("a2", "b1", "d1", "d2", "d3", "e1", "e2", "f1"), 0)
    offsets |= {"a1": 1, "b2": 1, "c1": -1, "c2": -1}
    labels, settled = count_contradictions(pairs, offsets)
    for row, names, apart in (labels, "labels", 2), (settled, "settled", 2):  # a and d1/d3; b and d1/d3
        assert (row.names, row.pairs, row.clear, row.contradictions) == (names, 6, 5, apart)
        assert row.percent == 40.0
        assert row.low <= row.percent <= row.high


def test_without_a_clear_pair_of_settled_images_there_is_no_percentage():
    for row in count_contradictions([pair("a", "a1", "a2", 1.0)], {"a1": 0}):
        assert (row.pairs, row.clear, row.contradictions, row.percent, row.low) == (0, 0, 0, None, None)


def test_pairs_come_back_from_their_table():
    pairs = read_compared(STUDY / "pairs.csv")
    assert (len(pairs), sum(one.clear for one in pairs)) == (391, 227)  # as the study says
    first = pairs[0]
    assert (first.group, first.by_labels, first.clear, first.by_network) == ("162", 0.375, True, 0.341)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("group,first,second\na,b,c\n", "no column 'by_labels'"),
        ("group,first,second,by_labels,correlation,better,clear,by_network\na,b,c,one,0,0,True,\n", "numbers"),
    ],
)
def test_another_table_is_refused(tmp_path, content, told):
    table = tmp_path / "pairs.csv"
    table.write_text(content)
    with pytest.raises(UserError, match=told):
        read_compared(table)


def test_a_source_that_nobody_marked_has_no_settled_names(tmp_path):
    done = run(
        *("level-agreement", "--source", "csv", "--anatomy", "ap_whole_spine", "--root", tmp_path),
        *("--names", "settled", "--out", tmp_path / "out"),
    )
    assert done.returncode == 1
    assert "level marks csv: no such file and no committed name (aasce)" in done.stderr


def level_agreement(tmp_path, *more):
    root = Path(os.environ.get("VERTEBRA_KP_AASCE") or REPOSITORY.parent / "shared/data/aasce/boostnet_labeldata")
    if not root.is_dir():
        pytest.skip("AASCE is not at hand: VERTEBRA_KP_AASCE names no folder")
    return run(
        *("level-agreement", "--source", "aasce", "--root", root, "--repair-file", "aasce"),
        *("--names", "settled", "--out", tmp_path, *more),
    )


def test_the_committed_figures_come_from_the_committed_pairs_and_the_real_labels(tmp_path):
    done = level_agreement(tmp_path, "--compared", STUDY / "pairs.csv")
    assert done.returncode == 0, done.stderr
    assert "names are settled on 463 of 481 images" in done.stdout
    assert (tmp_path / "settled.csv").read_text() == (STUDY / "settled.csv").read_text()
    with (STUDY / "settled.csv").open(newline="", encoding="utf-8") as file:
        labels, settled = csv.DictReader(file)
    for row, apart in (labels, 54), (settled, 9):
        assert (row["clear"], row["contradictions"]) == ("222", str(apart))
        assert float(row["percent"]) == pytest.approx(100 * apart / 222, abs=0.05)


def test_pairs_of_other_images_are_refused(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("group,first,second,by_labels,correlation,better,clear,by_network\na,b,c,1,0.5,0.1,True,\n")
    done = level_agreement(tmp_path, "--compared", table)
    assert done.returncode == 1
    assert "none of its pairs is among the 481 images" in done.stderr
