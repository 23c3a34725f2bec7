"""A name of any bytes can be shown, and says which bytes it has."""

import os

import pytest

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.text import printable


@pytest.mark.parametrize("name", ["film 7.png", "Röntgen/Жук/膝.png", "\\xe9.png", ""])
def test_a_name_in_utf_8_stays_as_it_is(name):
    assert printable(name) == name


def test_each_byte_that_is_not_utf_8_is_shown_as_its_number(tmp_path):
    path = tmp_path / os.fsdecode(b"r\xf6ntgen\xff \xc3\xa9.png")  # two bytes of Latin-1, then an e acute of UTF-8
    assert printable(path) == f"{tmp_path}/r\\xf6ntgen\\xff é.png"


def test_half_a_utf_16_pair_is_shown_too():
    assert printable("a\ud83db") == "a\\ud83db"


def test_an_error_about_such_a_file_can_be_printed():
    error = UserError(f"{os.fsdecode(b'film_' + bytes([0xE9]))}.png: empty file")
    assert str(error).encode() == b"film_\\xe9.png: empty file"
