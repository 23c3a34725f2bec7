"""Training of a spine network: several sources, an exact resume, clear refusals."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra_kp.cli.main import main
from vertebra_kp.config.spine import SpineConfig
from vertebra_kp.data.spine_sources import films_of_sources
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.training import spine_loop

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


def run(config: SpineConfig, path):
    films, _ = films_of_sources(config)
    return spine_loop.train_spine(config, films, path, torch.device("cpu"))


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(folder, tmp_path, monkeypatch):
    config = SpineConfig.model_validate(values(folder), strict=False)
    whole = load_checkpoint(run(config, tmp_path / "whole"))
    batches = spine_loop._batches
    monkeypatch.setattr(spine_loop, "_batches", lambda *arguments: islice(batches(*arguments), 2))
    half = load_checkpoint(run(config, tmp_path / "halved"))
    assert half.step == 2
    monkeypatch.undo()
    resumed = load_checkpoint(run(config, tmp_path / "halved"))
    assert resumed.step == whole.step == 4
    for name, value in whole.weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=0, msg=name)


def test_a_trained_network_predicts_and_half_of_the_images_validate(folder, tmp_path):
    config = SpineConfig.model_validate(values(folder), strict=False)
    films, validation = films_of_sources(config)
    (held_back,) = validation.values()
    assert len(films) == len(held_back) == 2
    predictor = load(spine_loop.train_spine(config, films, tmp_path / "run", torch.device("cpu")))
    assert isinstance(predictor, SpinePredictor)
    prediction = predictor.predict(folder / "films" / "film0.png")
    assert prediction.points_xy_image.shape == (17, 4, 2)


def test_the_command_trains_and_replaces_no_run_unasked(folder, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(values(folder)))
    words = ["train", "--config", str(config), "--run-dir", str(tmp_path / "run"), "--device", "cpu"]
    assert main(words) == 0
    assert main(words) == 1
    assert "--resume goes on with it, --overwrite replaces it" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0


def test_no_named_folder_is_an_error(folder, tmp_path):
    nowhere = values(folder) | {"sources": [{"source": "centres"}]}
    with pytest.raises(Exception, match="name the folder of at least one source"):
        films_of_sources(SpineConfig.model_validate(nowhere, strict=False))
