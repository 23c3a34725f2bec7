"""Cross-validation: folds take turns, every film is judged by the network that has not seen it."""

import csv
import json

import numpy as np
import pytest
from commands import TINY, run
from tiny_job import tiny_config

from vertebra_kp.config.io import save_config
from vertebra_kp.config.schema import PatchConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.store import load_evaluation
from vertebra_kp.experiments.folds import plan_folds


def config_file(folder, **splits):
    config = tiny_config(batch_norm_calibration=1)
    data = config.data.model_copy(update={"source": "csv", "split_file": "own.json", **splits})
    save_config(config.model_copy(update={"data": data}), folder / "job.yaml")
    return folder / "job.yaml"


def test_every_fold_validates_once_and_trains_the_others(tmp_path):
    config = config_file(tmp_path, train_splits=["c", "a"], validation_splits=["b"])
    study = plan_folds(config, ["codec.sigma=2.0"], tmp_path / "out", [0, 7])
    told = [
        (run.settings.config.data.train_splits, run.settings.config.data.validation_splits)
        for run in study.planned
    ]
    assert told == 2 * [(["b", "c"], ["a"]), (["a", "c"], ["b"]), (["a", "b"], ["c"])]
    assert [run.settings.config.train.seed for run in study.planned] == [0, 0, 0, 7, 7, 7]
    assert {run.settings.config.codec.sigma for run in study.planned} == {2.0}
    assert len({run.run_dir for run in study.planned}) == 6


def test_films_without_splits_cannot_take_turns(tmp_path):
    save_config(tiny_config(), tmp_path / "job.yaml")
    with pytest.raises(UserError, match=r"two splits or more.*which have \[\]; make a split file"):
        plan_folds(tmp_path / "job.yaml", [], tmp_path / "out", [0])


def drawn_folds(folder):
    """Nine films of a csv source, with three folds: their folder, the split file, its splits."""
    films, split = folder / "films", folder / "own.json"
    for arguments in (
        ["phantom", "--anatomy", "la_lumbar", "--num-images", 9, "--size", 128, 64, "--out", films],
        [
            "split",
            "--source",
            "csv",
            "--anatomy",
            "la_lumbar",
            "--root",
            films,
            "--folds",
            3,
            "--output-file",
            split,
        ],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    splits = json.loads(split.read_text())["splits"]
    return films, split, {name: ids for name, ids in splits.items() if name.startswith("fold")}


@pytest.mark.slow
def test_folds_are_trained_measured_and_pooled_from_the_command_line(tmp_path):
    out = tmp_path / "folds"
    films, split, splits = drawn_folds(tmp_path)
    folds = sorted(splits)
    config = config_file(
        tmp_path, root=films, split_file=str(split), train_splits=folds[:-1], validation_splits=folds[-1:]
    )
    command = [
        "--config",
        config,
        "--out",
        out,
        "--set",
        *TINY,
        "train.phases.0.epochs=1",
        "train.phases.1.epochs=1",
    ]
    done = run("cross-validate", *command)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    with (out / "results.csv").open(newline="") as file:
        rows = {row["variant"]: float(row["mre_px"]) for row in csv.DictReader(file)}
    assert rows.keys() == set(folds)
    # A film has 22 corners, all labelled: the mean over all films is that of the folds, weighed by their films.
    weights = [len(splits[fold]) for fold in folds]
    assert metrics["films"] == sum(weights)
    assert metrics["mre_px"] == pytest.approx(
        np.average([rows[fold] for fold in folds], weights=weights), rel=1e-3
    )
    seen = [result.id for result in load_evaluation(out / "runs" / "all").results]
    assert sorted(seen) == sorted(film for fold in folds for film in splits[fold])
    assert run("report", out / "runs" / "all").returncode == 0

    before = (out / "results.csv").read_text()
    again = run("cross-validate", *command)  # nothing is left to train
    assert again.returncode == 0, again.stderr
    assert (out / "results.csv").read_text() == before
    assert json.loads((out / "metrics.json").read_text()) == metrics
    other = run("cross-validate", *command, "codec.sigma=2.0")
    assert other.returncode == 1
    assert "codec.sigma 1.5 in the row, 2.0 now" in other.stderr
    assert "move stale results to" in other.stderr
    assert "keep stale rows" not in other.stderr  # which this command cannot


@pytest.mark.slow
def test_a_second_look_is_trained_per_fold_and_films_are_measured_with_both(tmp_path):
    out, tiny = tmp_path / "folds", [*TINY, "train.phases.0.epochs=1", "train.phases.1.epochs=1"]
    films, split, splits = drawn_folds(tmp_path)
    folds = sorted(splits)
    source = {"split_file": str(split), "train_splits": folds[:-1], "validation_splits": folds[-1:]}
    config = config_file(tmp_path, root=films, **source)
    # The films' folder is not in the second config: --set tells both.
    (tmp_path / "vertebra").mkdir()
    patches = config_file(tmp_path / "vertebra", patch=PatchConfig(widths=2.0, film_size=(128, 64)), **source)
    command = ["--config", config, "--refine-config", patches, "--out", out, "--set", f"data.root={films}", *tiny]
    done = run("cross-validate", *command)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["films"] == 9
    assert metrics["config"]["data"]["patch"] is None
    assert metrics["refine"]["data"]["patch"]["widths"] == 2.0
    for fold in folds:
        told = json.loads((out / "runs" / f"{fold}-0" / "evaluation" / "metrics.json").read_text())
        assert told["refine"] == str(out / "second_look" / "runs" / f"{fold}-0" / "checkpoints" / "best.pt")


def test_both_looks_need_the_same_folds(tmp_path):
    (tmp_path / "vertebra").mkdir()
    config = config_file(tmp_path, train_splits=["a"], validation_splits=["b"])
    other = config_file(tmp_path / "vertebra", train_splits=["a"], validation_splits=["c"])
    done = run("cross-validate", "--config", config, "--refine-config", other, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "its folds are a, c, those of" in done.stderr
    assert "give both the same splits" in done.stderr
