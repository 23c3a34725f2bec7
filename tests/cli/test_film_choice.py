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
    [["--split", "fold1"], ["--split-file", "own.json"], ["--repair-file", "aasce"], ["--no-stored-order"]],
)
def test_validation_films_are_those_of_the_training_and_no_others(words):
    flag = words[0].replace("--no-", "--")
    with pytest.raises(UsageError, match=f"leave out {flag}, or name the images with --source"):
        film_choice.check_films(parsed("--validation", *words))


@pytest.mark.parametrize("words", [["--stored-order"], ["--split", "test"]])
def test_repairs_are_for_the_labels_that_they_were_made_from(words):
    with pytest.raises(UsageError, match="leave --stored-order or test out"):
        film_choice.check_films(parsed("--source", "aasce", "--repair-file", "aasce", *words))


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
