"""Results are on disk as soon as they are found, and older ones are never replaced unasked."""

import json

import pytest

from vertebra_kp.core.errors import UserError
from vertebra_kp.inference.journal import FILE, open_journal

ABOUT = {"network": "0123", "report": False}


def write(folder, names, about=ABOUT, **how):
    with open_journal(folder, about, **({"resume": False, "overwrite": False} | how)) as journal:
        for name in names:
            journal.add(name, {"image": {"file": name}})
        return dict(journal.done)


def lines(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_every_line_is_on_disk_before_the_next_image(tmp_path):
    with open_journal(tmp_path, ABOUT, resume=False, overwrite=False) as journal:
        for number, name in enumerate(["a.png", "b.png"], start=1):
            journal.add(name, {"image": number})
            assert len(lines(tmp_path)) == number + 1  # the first says what made them


def test_a_journal_goes_on_where_it_was_cut_off_in_the_middle_of_a_line(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-7])
    done = write(tmp_path, ["b.png", "c.png"], resume=True)
    assert list(done) == ["a.png", "b.png", "c.png"]
    assert [line.get("file") for line in lines(tmp_path)] == [None, "a.png", "b.png", "c.png"]
    assert done["b.png"] == {"image": {"file": "b.png"}}


@pytest.mark.parametrize("change", [("a.png", "c.png"), ('"crc32"', '"other"'), ("0123", "0124")])
def test_a_line_that_was_changed_is_damage(tmp_path, change):
    write(tmp_path, ["a.png", "b.png"])
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace(*change, 1))
    with pytest.raises(UserError, match=r"damaged .*not as it was written.*overwrite it"):
        write(tmp_path, ["c.png"], resume=True)


def test_a_journal_of_an_earlier_version_is_resumed(tmp_path):
    write(tmp_path, ["a.png"])
    plain = [{key: value for key, value in line.items() if key != "crc32"} for line in lines(tmp_path)]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in plain))
    assert list(write(tmp_path, ["b.png"], resume=True)) == ["a.png", "b.png"]


@pytest.mark.parametrize("kept", [FILE, "predictions.json"])
def test_older_results_are_not_replaced_unasked(tmp_path, kept):
    write(tmp_path, ["a.png"])
    (tmp_path / FILE).rename(tmp_path / kept)
    before = (tmp_path / kept).read_bytes()
    with pytest.raises(UserError, match="already holds results: resume them, overwrite them"):
        write(tmp_path, ["b.png"])
    assert (tmp_path / kept).read_bytes() == before
    assert list(write(tmp_path, ["b.png"], overwrite=True)) == ["b.png"]


def test_results_of_another_network_are_not_mixed_in(tmp_path):
    write(tmp_path, ["a.png"])
    with pytest.raises(UserError, match="made with another network"):
        write(tmp_path, ["b.png"], ABOUT | {"network": "4567"}, resume=True)
    assert len(lines(tmp_path)) == 2


def test_a_second_process_is_refused(tmp_path):
    mine = open_journal(tmp_path, ABOUT, resume=False, overwrite=False)
    with mine, pytest.raises(UserError, match="another process"):
        write(tmp_path, ["b.png"], resume=True)


@pytest.mark.parametrize("text", ["no json\n", "[]\n", '{"about": 3}\n{}\n'])
def test_a_damaged_journal_is_refused_in_one_line(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=FILE):
        write(tmp_path, ["b.png"], resume=True)
    assert (tmp_path / FILE).read_text() == text
