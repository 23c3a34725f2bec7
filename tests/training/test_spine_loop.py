"""Training of a spine network: several sources, an exact resume, clear refusals."""

import json
import signal
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra_kp.cli.main import main
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.spine_sources import deal, training_films_of
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.training import spine_loop
from vertebra_kp.training.loop import Interrupted

LEVELS = ("L1", "L2", "L3", "L4", "L5")


@pytest.fixture
def folder(tmp_path):
    """Four AP lumbar images with corners, in the layout of the source ``corners``."""
    (tmp_path / "set" / "films").mkdir(parents=True)
    rng = np.random.default_rng(0)
    marks = {}
    for i in range(4):
        name = f"film{i}.png"
        Image.fromarray(rng.integers(0, 255, (260, 120), dtype=np.uint8)).save(tmp_path / "set" / "films" / name)
        levels = {}
        for k, level in enumerate(LEVELS):
            top, left = 20 + 44 * k, 30 + 2 * i
            corners = {
                "TL": (left, top),
                "TR": (left + 50, top),
                "BL": (left, top + 32),
                "BR": (left + 50, top + 32),
            }
            levels[level] = {corner: list(map(float, xy)) for corner, xy in corners.items()}
        marks[name] = {"levels": levels}
    (tmp_path / "set" / "corners.json").write_text(json.dumps(marks))
    return tmp_path / "set"


def values(folder, **train):
    return {
        "name": "tiny",
        "sources": [{"source": "corners", "root": str(folder), "folds": 2}],
        "network": {
            "backbone": {"name": "timm/tf_efficientnet_lite0"},
            "neck": {"depth": 1, "width": 16, "heads": 2},
            "decoder": {"channels": [8, 8, 8], "output_stride": 4},
        },
        "views": {"size": [128, 64], "step_px": 20},
        "train": {"steps": 4, "batch_size": 2, "save_every_steps": 2, "freeze_stages": 0, **train},
    }


def level_values(folder, **train):
    return {
        "name": "tiny_levels",
        "sources": [{"source": "corners", "root": str(folder), "folds": 2}],
        "network": {
            "backbone": {"name": "timm/tf_efficientnet_lite0"},
            "channels": 8,
            "encoder": {"depth": 1, "width": 16, "heads": 2},
        },
        "reformation": {"rows": 12, "step_px": 16, "beside": 2.0, "least": 4},
        "train": {"steps": 4, "batch_size": 2, "save_every_steps": 2, "freeze_stages": 0, **train},
    }


def run(config: SpineConfig | LevelConfig, path, **how):
    return spine_loop.train_spine(config, training_films_of(config), path, torch.device("cpu"), **how)


@pytest.mark.parametrize("kind", [SpineConfig, LevelConfig])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(folder, tmp_path, monkeypatch, kind):
    config = kind.model_validate((values if kind is SpineConfig else level_values)(folder), strict=False)
    whole = load_checkpoint(run(config, tmp_path / "whole"))
    batches = spine_loop._batches
    monkeypatch.setattr(spine_loop, "_batches", lambda *arguments: islice(batches(*arguments), 2))
    half = load_checkpoint(run(config, tmp_path / "halved"))
    assert half.step == 2
    monkeypatch.undo()
    resumed = load_checkpoint(run(config, tmp_path / "halved", resume=True))
    assert resumed.step == whole.step == 4
    for name, value in whole.weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=0, msg=name)


def test_figures_of_steps_that_a_kill_undid_are_not_there_twice(folder, tmp_path):
    config = SpineConfig.model_validate(values(folder), strict=False)
    last = run(config, tmp_path / "run")
    figures = last.with_name("metrics.csv")
    whole = figures.read_text()
    figures.write_text(whole + whole.splitlines()[-1].replace("4,", "6,", 1) + "\n" + "8,0.3")
    run(config, tmp_path / "run", resume=True)
    assert figures.read_text() == whole


def test_a_trained_network_predicts_and_half_of_the_images_validate(folder, tmp_path):
    config = SpineConfig.model_validate(values(folder), strict=False)
    train, held_back = deal(config.sources[0], fold=0)
    assert len(train) == len(held_back) == 2
    assert not {record.id for record in train} & {record.id for record in held_back}
    predictor = load(run(config, tmp_path / "run"))
    assert isinstance(predictor, SpinePredictor)
    prediction = predictor.predict(folder / "films" / "film0.png")
    assert prediction.points_xy_image.shape == (17, 4, 2)


def test_the_curves_go_to_every_tracker(folder, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = SpineConfig.model_validate(values(folder, trackers=["tensorboard", "mlflow"]), strict=False)
    run(config, tmp_path / "run")
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    client = MlflowClient((tmp_path / "run" / "mlflow").resolve().as_uri())
    (logged,) = client.search_runs([client.get_experiment_by_name("vertebra_kp").experiment_id])
    curve = [(point.step, point.value) for point in client.get_metric_history(logged.info.run_id, "train/total")]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/total")
    assert logged.info.status == "FINISHED"
    assert [step for step, _ in curve] == [event.step for event in events] == [2, 4]
    assert [value for _, value in curve] == pytest.approx([event.value for event in events], rel=1e-6)


def test_without_a_fold_every_image_trains(folder):
    config = SpineConfig.model_validate(values(folder) | {"fold": None}, strict=False)
    by_parts, by_share = config.sources[0], config.sources[0].model_copy(update={"folds": None, "validation": 0.5})
    whole = {f"films/film{i}.png" for i in range(4)}
    for source in (by_parts, by_share):
        train, held_back = deal(source, config.fold)
        assert ({record.id for record in train}, held_back) == (whole, [])
    assert len(training_films_of(config)) == 4


def test_a_network_that_has_seen_all_images_is_not_measured_on_them(folder, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(values(folder)))
    words = ["--config", str(config), "--device", "cpu", "--set", "fold=null"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "run")]) == 0
    last = str(tmp_path / "run" / "last.pt")
    with pytest.raises(SystemExit):
        main(["framing", "--network", last, *words[:4], "--out", str(tmp_path / "out")])
    assert "all images of this config trained it" in capsys.readouterr().err


def test_without_a_fold_the_validation_splits_train_too(folder, tmp_path):
    ids = [f"films/film{i}.png" for i in range(4)]
    split = {"source": "corners", "method": "by hand", "splits": {"a": ids[:1], "b": ids[1:3], "rest": ids[3:]}}
    (tmp_path / "split.json").write_text(json.dumps(split))
    source = SpineConfig.model_validate(values(folder), strict=False).sources[0]
    parts = {"split_file": str(tmp_path / "split.json"), "train_splits": ["a"], "validation_splits": ["b"]}
    split_source = source.model_copy(update=parts)
    assert [[record.id for record in part] for part in deal(split_source, 0)] == [ids[:1], ids[1:3]]
    assert [[record.id for record in part] for part in deal(split_source, None)] == [ids[:3], []]


def test_the_command_trains_and_replaces_no_run_unasked(folder, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(values(folder)))
    words = ["train", "--config", str(config), "--run-dir", str(tmp_path / "run"), "--device", "cpu"]
    assert main(words) == 0
    assert main(words) == 1
    assert "already holds a run; resume it, overwrite it" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0


def test_a_mistake_costs_no_older_run(folder, tmp_path):
    config = SpineConfig.model_validate(values(folder), strict=False)
    last = run(config, tmp_path / "run")
    before = last.read_bytes()
    wrong = values(folder, start_from=str(tmp_path / "no.pt"))
    with pytest.raises(UserError, match="no such checkpoint"):
        run(SpineConfig.model_validate(wrong, strict=False), tmp_path / "run", overwrite=True)
    assert last.read_bytes() == before
    run(config, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 3  # a header and two rows, of one run


def test_another_config_or_other_labels_are_not_resumed(folder, tmp_path):
    config = SpineConfig.model_validate(values(folder), strict=False)
    run(config, tmp_path / "run")
    with pytest.raises(UserError, match="config differs"):
        run(SpineConfig.model_validate(values(folder, lr=1e-4), strict=False), tmp_path / "run", resume=True)
    marks = json.loads((folder / "corners.json").read_text())
    for film in marks.values():
        film["levels"]["L1"]["TL"][0] += 5
    (folder / "corners.json").write_text(json.dumps(marks))
    with pytest.raises(UserError, match="labels differ"):
        run(config, tmp_path / "run", resume=True)


def test_a_signal_leaves_a_checkpoint_of_the_last_step(folder, tmp_path, monkeypatch):
    config = SpineConfig.model_validate(values(folder, steps=40, save_every_steps=40), strict=False)
    batches = spine_loop._batches

    def interrupted(*arguments):
        for i, batch in enumerate(batches(*arguments)):
            if i == 1:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(spine_loop, "_batches", interrupted)
    with pytest.raises(Interrupted, match="after step 2"):
        run(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 2


def test_no_named_folder_is_an_error(folder, tmp_path):
    nowhere = values(folder) | {"sources": [{"source": "centres"}]}
    with pytest.raises(Exception, match="name the folder of at least one source"):
        training_films_of(SpineConfig.model_validate(nowhere, strict=False))


def test_a_level_network_names_what_a_spine_network_finds(folder, tmp_path, capsys):
    spine = run(SpineConfig.model_validate(values(folder), strict=False), tmp_path / "spine")
    levels = run(LevelConfig.model_validate(level_values(folder), strict=False), tmp_path / "levels")
    with pytest.raises(UserError, match="names what a spine network finds"):
        load(levels)
    out = tmp_path / "both.safetensors"
    words = ["export-weights", "--about", "test", "--output-file", str(out)]
    assert main([*words, "--network", str(spine), "--levels", str(levels)]) == 0
    both, alone = load(out), load(spine)
    assert isinstance(both, SpinePredictor)
    assert [config.name for config in both.configs] == ["tiny", "tiny_levels"]
    assert both.fingerprint != alone.fingerprint
    (reader,) = both.level_readers
    centres = np.array([[55.0, 36 + 44 * i] for i in range(5)])
    evidence = reader.evidence(np.zeros((260, 120), np.uint8), centres)
    assert evidence.shape == (5, 25)
    with pytest.raises(SystemExit):
        main([*words, "--network", str(spine), "--levels", str(spine)])
    assert "no network of that kind" in capsys.readouterr().err


def test_images_that_name_too_few_neighbours_are_left_out(folder, caplog):
    config = LevelConfig.model_validate(level_values(folder), strict=False)
    more = config.model_copy(update={"reformation": config.reformation.model_copy(update={"least": 6})})
    assert len(training_films_of(config)) == 2
    with pytest.raises(UserError, match="no image to train on"):
        training_films_of(more)
    assert "2 images name fewer than 6 neighbours" in caplog.text
