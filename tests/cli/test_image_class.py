"""A class of one's own trains and is measured from a table of films and classes."""

import csv
import json
import re

import cv2
import numpy as np
import pytest
from commands import TINY, run
from tiny_job import thin_efficientnet

from vertebra_kp.models import library

# Inverted images are as easy to see as an implant, and a class that nothing else tells.
NAMES = ("plain", "inverted")
OTHERS = "neck, decoder, heatmap_head, presence_head"


@pytest.fixture(autouse=True)
def thin_backbone(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)


def table(path, class_of):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("film", "class"), *class_of.items()])
    return path


@pytest.fixture
def films(tmp_path):
    """A folder of 16 films, every second one inverted, with its split file and the classes of its films."""
    folder, split = tmp_path / "films", tmp_path / "splits.json"
    for arguments in (
        ["phantom", "--anatomy", "la_lumbar", "--num-images", 16, "--size", 128, 64, "--out", folder],
        ["split", "--source", "csv", "--anatomy", "la_lumbar", "--root", folder, "--output-file", split],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    class_of = {}
    for i, path in enumerate(sorted(folder.glob("*.png"))):
        class_of[path.name] = NAMES[i % 2]
        if i % 2:
            cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    return folder, split, class_of


def test_a_class_of_ones_own_trains_and_is_measured(films, tmp_path):
    folder, split, class_of = films
    left_out = next(iter(class_of))
    known = table(tmp_path / "known.csv", {name: kind for name, kind in class_of.items() if name != left_out})
    settings = [
        *(f"data.root={folder}", f"data.split_file={split}", f"data.class_file={known}"),
        "network.classification={targets: [image_class], classes: [plain, inverted], hidden: 0, maps: [F2, F4]}",
        *("loss.class_weights=[1.0, 1.2]", "loss.image_class_weight=2.0"),
        *("network.neck.depth=0", "network.decoder.output_stride=4", "train.evaluate_films=null"),
        *("train.batch_size=4", "train.ema_decay=0"),
        # The head alone, on maps of random weights: enough for what is as easy to see as that.
        f"train.phases=[{{name: head, epochs: 20, lr: 0.05, freeze_stages: all, freeze: [{OTHERS}]}}]",
    ]
    trained = run("train", "--config", "own_films", "--run-dir", tmp_path / "run", "--set", *TINY, *settings)
    assert trained.returncode == 0, trained.stderr
    measure = ["evaluate", "--network", tmp_path / "run" / "checkpoints" / "last.pt", "--source", "csv"]
    done = run(*measure, "--root", folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "image_class" in done.stdout
    assert "medication images" in done.stdout
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["image_class"]
    assert figures["labelled"] == 15
    assert figures["counts"] == {"plain": 7, "inverted": 8}
    assert figures["top1"] >= 0.8
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())["films"]
    called = [entry["image_class"]["class"] for entry in entries]
    assert np.mean([kind in NAMES for kind in called]) == 1
    turned = {"plain": "inverted", "inverted": "plain"}
    other = table(tmp_path / "other.csv", {name: turned[kind] for name, kind in class_of.items()})
    again = run(*measure, "--root", folder, "--class-file", other, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    figures = json.loads((tmp_path / "again" / "metrics.json").read_text())["image_class"]
    assert (figures["labelled"], figures["top1"]) == (16, pytest.approx(0.1, abs=0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["network.classification={targets: [image_class]}"], "needs two names or more in classes"),
        (["network.classification={classes: [a, b]}"], "classes is not read without the target image_class"),
        (["network.classification={targets: [view, view]}"], "targets names something twice: view, view"),
        (["network.classification={targets: [image_class], classes: [a, b]}"], "classes needs data.class_file"),
        (["data.class_file=x.csv"], "but no image_class is predicted; add it to network.classification.targets"),
        (
            ["network.classification={targets: [image_class], classes: [a, b]}", "data.class_file=x.csv"],
            "data.class_file is for whole films on disk; name data.source",
        ),
        (["loss.class_weights=[1.0]"], "loss.class_weights has 1 numbers, network.classification.classes 0"),
        (["network.classification={maps: [P3]}"], "there is no map P3, only F1, F2, F3, S16, F4"),
        (["network.decoder.name=fpn", "network.classification={maps: [P6]}"], "no map P6, only F1.*P4, P5"),
    ],
)
def test_settings_that_do_not_go_together_are_named(settings, message, tmp_path):
    done = run("train", "--config", "quickstart", "--describe", "--set", *settings)
    assert done.returncode != 0
    assert re.search(message, " ".join(done.stderr.split())), done.stderr
