"""Arguments that say which films a command measures: what does not go together is told, not dropped."""

import argparse
from types import SimpleNamespace

import pytest

from vertebra_kp.cli import film_choice
from vertebra_kp.config.schema import Config


def parsed(*words):
    parser = argparse.ArgumentParser()
    film_choice.add_film_arguments(parser, seed=1, number=2)
    arguments = parser.parse_args(words)
    film_choice.check_film_arguments(parser, arguments)
    return arguments


@pytest.mark.parametrize(
    "words",
    [["--split", "fold1"], ["--split-file", "own.json"], ["--repair-file", "aasce"], ["--no-stored-order"]],
)
def test_validation_films_are_those_of_the_training_and_no_others(words, capsys):
    with pytest.raises(SystemExit):
        parsed("--validation", *words)
    told = words[0].replace("--no-", "--")
    assert f"leave out {told}, or name the films with --source" in capsys.readouterr().err


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
