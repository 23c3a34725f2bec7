"""A table of films and classes: which film is meant, and what cannot be right."""

from pathlib import Path

import pytest

from vertebra_kp.core.anatomy import UNKNOWN
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.classes import label_classes
from vertebra_kp.data.record import Record

NAMES = ("no_fracture", "fracture", "implant")
FILMS = ("a/1.png", "b/1.png", "b/Wirbelsäule 2.JPG", "c.d.png")


def records() -> list[Record]:
    return [Record(film, Path("films") / film, group=film) for film in FILMS]


def classes(tmp_path: Path, text: str | bytes) -> list[int]:
    table = tmp_path / "classes.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [record.image_class for record in label_classes(records(), table, NAMES)]


@pytest.mark.parametrize(
    ("film", "place"),
    [
        ("b/1.png", 1),  # its id
        ("b\\1.png", 1),  # written on Windows
        ("Wirbelsa\u0308ule 2.JPG", 2),  # the file's name, as a Mac spells it
        ("Wirbelsäule 2", 2),  # without its ending
        ("c.d", 3),
    ],
)
def test_a_film_is_found_by_its_id_or_its_name(tmp_path, film, place):
    expected = [2 if i == place else UNKNOWN for i in range(len(FILMS))]
    assert classes(tmp_path, f"film,class\n{film},implant\n") == expected


def test_tables_of_spreadsheets_are_read(tmp_path):
    text = "\ufeffnote,class,film\r\n,fracture,c.d.png\r\n,,\r\nsee, no_fracture ,a/1.png\r\n"
    assert classes(tmp_path, text) == [0, UNKNOWN, UNKNOWN, 1]


def test_films_that_are_not_there_are_counted(tmp_path, caplog):
    assert classes(tmp_path, "film,class\nx.png,fracture\nc.d,fracture\ny.png,fracture\n")[3] == 1
    assert "names 2 images that are not there, the first is x.png" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("film,class\nc.d,break\n", "line 2: there is no class break, only no_fracture, fracture, implant"),
        ("film,class\nc.d,\n", "line 2: there is no class , only"),
        ("film,class\n1.png,fracture\n", "line 2: 2 images are called 1.png; write their ids"),
        ("film,class\nc.d,fracture\nc.d.png,implant\n", "line 3: c.d.png is implant here and fracture before"),
        ("image,class\nc.d,fracture\n", "has no column film; its first line must name film and class"),
        ("", "has no column class"),
        ("film,class\nx,fracture\n", "names none of 4 images; its column film must hold their ids or file names"),
        (b"film,class\n\xff\xfe,fracture\n", "cannot be read .*; give a CSV with columns film and class"),
    ],
)
def test_what_cannot_be_right_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        classes(tmp_path, text)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        label_classes(records(), tmp_path / "none.csv", NAMES)
