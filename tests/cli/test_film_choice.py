"""Arguments that say which films a command measures: what does not go together is refused, not dropped."""

from types import SimpleNamespace

import pytest

from vertebra_kp.cli import film_choice
from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.main import build_parser
from vertebra_kp.config.schema import Config


def parsed(*words):
    return build_parser().parse_args(["robustness", "--network", "best.pt", "--out", "OUT", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--split", "fold1"],
        ["--split-file", "own.json"],
        ["--repair-file", "aasce"],
        ["--names", "settled"],
        ["--no-stored-order"],
    ],
)
def test_validation_films_are_those_of_the_training_and_no_others(words):
    flag = words[0].replace("--no-", "--")
    with pytest.raises(UsageError, match=f"leave out {flag}, or name the images with --source"):
        film_choice.check_films(parsed("--validation", *words))


@pytest.mark.parametrize("words", [["--stored-order"], ["--split", "test"]])
def test_repairs_are_for_the_labels_that_they_were_made_from(words):
    with pytest.raises(UsageError, match="leave --stored-order or test out"):
        film_choice.check_films(parsed("--source", "aasce", "--repair-file", "aasce", *words))
    with pytest.raises(UsageError, match=r"--names settles.*leave --stored-order or test out"):
        film_choice.check_films(parsed("--source", "aasce", "--names", "settled", *words))
    film_choice.check_films(parsed("--source", "aasce", "--names", "labels", *words))


def test_names_are_settled_only_where_levels_are_marked():
    with pytest.raises(UsageError, match="--names settled is for --source aasce"):
        film_choice.check_films(parsed("--source", "csv", "--names", "settled"))


@pytest.mark.parametrize(
    ("trained", "words", "names", "stored_order"),
    [
        ({}, [], "labels", False),
        ({"names": "settled"}, [], "settled", False),
        ({"names": "settled"}, ["--names", "labels"], "labels", False),
        ({}, ["--names", "settled"], "settled", False),
        ({"names": "settled"}, ["--stored-order"], "labels", True),
        ({"names": "settled"}, ["--split", "test"], "labels", False),
        ({"stored_order": True}, ["--names", "settled"], "settled", False),
    ],
)
def test_names_are_those_of_the_training_unless_said_otherwise(monkeypatch, trained, words, names, stored_order):
    data = {"source": "aasce", "anatomy": "ap_whole_spine", "split_file": "aasce"}
    data |= {"train_splits": ["fold1"], "validation_splits": ["fold0"]} | trained
    config = Config.model_validate(
        {"name": "run", "data": data, "train": {"phases": [{"name": "one", "epochs": 1}]}}, strict=False
    )
    monkeypatch.setattr(film_choice, "films_of", lambda selection, film_size: selection)
    arguments, selection = film_choice.choose_films(parsed("--source", "aasce", *words), config, (64, 64))
    assert (selection.names, selection.stored_order) == (names, stored_order)
    assert (arguments.names, arguments.stored_order) == (names, stored_order)


def test_validation_films_that_were_moved_are_read_where_they_are_now(tmp_path, monkeypatch):
    data = {"source": "csv", "root": "old", "split_file": "s", "train_splits": ["a"], "validation_splits": ["b"]}
    config = Config.model_validate(
        {"name": "run", "data": data, "train": {"phases": [{"name": "one", "epochs": 1}]}}, strict=False
    )
    monkeypatch.setattr(
        film_choice, "validation_films", lambda config, film_size: SimpleNamespace(root=config.data.root)
    )
    arguments, films = film_choice.choose_films(parsed("--validation", "--root", str(tmp_path)), config, (64, 64))
    assert films.root == tmp_path
    assert (arguments.source, arguments.split) == ("csv", ["b"])
