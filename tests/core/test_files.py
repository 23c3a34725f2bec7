"""Files are written whole or not at all, with what was asked for in them."""

import csv
import errno
import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image
from typing_extensions import TypedDict

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import (
    csv_cell,
    plain_cell,
    read_csv,
    read_json,
    replacing,
    write_csv,
    write_image,
    write_json,
    write_text,
)

NOT_UTF8 = os.fsdecode(b"film_\xe9.png")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    write_text("old", path)
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half of the n", "no bytes"])
    with pytest.raises(ValueError, match="JSON"):
        write_json({"mre_px": float("nan")}, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "metrics.json"
    write_text("old", path)
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_whoever_may_read_other_new_files_may_read_these(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text("text", tmp_path / "file.txt")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_missing_folders_are_made(tmp_path):
    write_json([1], tmp_path / "a" / "b" / "c.json")
    assert json.loads((tmp_path / "a" / "b" / "c.json").read_text()) == [1]


def test_rows_keep_the_order_of_the_columns_and_leave_what_they_lack_empty(tmp_path):
    write_csv(
        ("film", "mre_px"), [{"mre_px": 1.5, "film": "a, b"}, {"film": NOT_UTF8, "other": 3}], tmp_path / "t.csv"
    )
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["film", "mre_px"], ["a, b", "1.5"], ["film_\\xe9.png", ""]]


@pytest.mark.parametrize("name", ["film.png", "röntgen.png", NOT_UTF8])
def test_an_image_has_its_colours_under_any_name(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    write_image(image, tmp_path / name)
    with Image.open(tmp_path / name) as found:
        np.testing.assert_array_equal(np.asarray(found), image)


def test_a_gray_image_stays_gray_and_a_lower_quality_is_smaller(tmp_path):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8), (0, 0), 3)
    for quality in (50, 95):
        write_image(image, tmp_path / f"{quality}.jpg", jpeg_quality=quality)
    with Image.open(tmp_path / "95.jpg") as found:
        assert found.mode == "L"
        assert np.abs(np.asarray(found).astype(int) - image).max() < 10
    assert (tmp_path / "50.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size


def test_an_image_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"a\.png: the image cannot be written .*; check folder and space"):
        write_image(np.zeros((4, 4), np.uint8), tmp_path / "out" / "a.png")


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-a.png", "@SUM(A1)", "\t=1", "'=1", "''=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_written_as_text_and_read_as_it_was(tmp_path, text):
    path = tmp_path / "table.csv"
    write_csv(["file", text], [{"file": text, text: 1.5}], path)
    header, row = csv.reader(path.read_text().splitlines())
    assert (header[1], row[0]) == (f"'{text}", f"'{text}")
    assert read_csv(path, remedy="") == [{"file": text, text: "1.5"}]


@pytest.mark.parametrize("value", [-1.5, None, True, "-1.5", "+3", "-inf", "a=b", "'quoted'", ""])
def test_numbers_and_other_text_stay_as_they_are(value):
    assert csv_cell(value) == value
    assert plain_cell(str(value)) == str(value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"\xff\xfe\xfd", "codec"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": -1e999}', "-1e999 is no finite number"),
        (b'{"a": "x"}', "a: Input should be a valid integer"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b"[]", "as a whole: Input should be a valid dictionary"),
    ],
)
def test_json_that_is_none_is_one_line_with_file_and_remedy(tmp_path, content, told):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_json(path, dict[str, int], remedy="write it again")
    assert str(refused.value).startswith(f"{path}: cannot be read (")
    assert str(refused.value).endswith("); write it again")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_json_is_read_as_what_was_asked_for(tmp_path):
    write_json({"a": 1, "b": [2.5, None]}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json", remedy="") == {"a": 1, "b": [2.5, None]}
    with pytest.raises(UserError, match=r"no\.json: cannot be read \(No such file"):
        read_json(tmp_path / "no.json", remedy="write it")


class Row(TypedDict):
    name: str
    mm: float


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name,mm\na,x\n", "0.mm: Input should be a valid number"),
        (b"name,mm\na\n", "0.mm: "),
        (b"name,px\na,1\n", "0.mm: Field required"),
        (b"name,mm\n\xff,1\n", "codec"),
        (b"name,mm\n" + b"a" * 200_000 + b",1\n", "field larger than field limit"),
    ],
)
def test_csv_that_is_none_is_one_line_with_file_and_remedy(tmp_path, content, told):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv: cannot be read .*; write it again$") as refused:
        read_csv(tmp_path / "a.csv", Row, remedy="write it again")
    assert told in str(refused.value)


def test_csv_is_read_back_and_an_unfinished_line_can_be_left_out(tmp_path):
    write_csv(["name", "mm"], [{"name": "a,\nb", "mm": 2.5}], tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv", Row, remedy="") == [{"name": "a,\nb", "mm": 2.5}]
    with (tmp_path / "a.csv").open("a") as file:
        file.write("c,7")
    assert len(read_csv(tmp_path / "a.csv", Row, remedy="")) == 2
    assert len(read_csv(tmp_path / "a.csv", Row, remedy="", whole_lines=True)) == 1


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt") as full, replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert full.value.filename == str(tmp_path / "a.txt")
