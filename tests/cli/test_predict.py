"""predict keeps every result as it is made: nothing that ends it, and nothing in one image, costs the others."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import REPOSITORY, run
from tiny_job import ONE_PROCESS, make_run, thin_efficientnet, tiny_config

from vertebra_kp.cli.predict import Item, name_files
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.inference.checkpoint import save_checkpoint
from vertebra_kp.inference.journal import FILE, Journal
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.models import library
from vertebra_kp.training.state import checkpoint_of


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A checkpoint of a small network with random weights."""
    path = tmp_path_factory.mktemp("network") / "checkpoints" / "best.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
        torch.manual_seed(3)
        job, state = make_run(tiny_config())
        save_checkpoint(checkpoint_of(state, job.config, ONE_PROCESS), path)
    return path


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(7):
        drawn = draw_film(SCHEMAS["la_lumbar"], "standard", 7, i, (120, 80))
        cv2.imwrite(str(folder / f"{i}.png"), drawn.image)
    return folder


def predicted(out):
    return json.loads((out / "predictions.json").read_text())["films"]


def stopped_after(monkeypatch, number, error):
    """The journal ends the command when so many images are kept."""
    add = Journal.add

    def add_or_end(self, name, line):
        add(self, name, line)
        if len(self.done) == number:
            raise error

    monkeypatch.setattr(Journal, "add", add_or_end)


def test_a_command_that_was_ended_goes_on_and_gives_what_an_undisturbed_one_gives(
    network, images, tmp_path, thin, monkeypatch
):
    asked = ("predict", images, "--network", network, "--device", "cpu", "--report", "--out")
    whole = run(*asked, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    with monkeypatch.context() as patch:
        stopped_after(patch, 5, KeyboardInterrupt())
        ended = run(*asked, tmp_path / "out")
    assert ended.returncode == 75
    assert "5 images are done; go on with --resume" in ended.stderr
    assert not (tmp_path / "out" / "predictions.json").exists(), "half a result must not look like a whole one"
    refused = run(*asked, tmp_path / "out")
    assert refused.returncode == 1
    assert "already holds results" in refused.stderr
    resumed = run(*asked, tmp_path / "out", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "7 images predicted, 0 skipped" in resumed.stdout
    for name in ("predictions.json", "predictions.csv", "readings.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list((tmp_path / "out" / "reports").iterdir())) == 7


def test_results_of_other_settings_are_neither_mixed_nor_replaced_unasked(network, images, tmp_path, thin):
    asked = ("predict", images / "0.png", images / "1.png", "--network", network, "--device", "cpu")
    assert run(*asked, "--out", tmp_path).returncode == 0
    before = (tmp_path / "predictions.json").read_bytes()
    other = run(*asked, "--out", tmp_path, "--resume", "--set", "codec.decode=argmax")
    assert other.returncode == 1
    assert "made with another network" in other.stderr
    assert (tmp_path / "predictions.json").read_bytes() == before
    replaced = run(*asked, "--out", tmp_path, "--overwrite", "--set", "codec.decode=argmax")
    assert replaced.returncode == 0, replaced.stderr
    assert (tmp_path / "predictions.json").read_bytes() != before


def test_an_image_with_a_name_that_is_not_utf8_is_predicted_like_any_other(network, images, tmp_path, thin):
    name = os.fsdecode(b"Wirbels\xe4ule.png")
    folder = tmp_path / "named"
    folder.mkdir()
    try:
        (folder / name).write_bytes((images / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    (folder / "b.png").write_bytes((images / "1.png").read_bytes())
    done = run("predict", folder, "--network", network, "--device", "cpu", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [Path(film["file"]).name for film in predicted(tmp_path / "out")] == ["Wirbels\\xe4ule.png", "b.png"]
    again = run("predict", folder, "--network", network, "--device", "cpu", "--out", tmp_path / "out", "--resume")
    assert "2 images predicted, 0 skipped" in again.stdout


def test_an_overlay_that_cannot_be_written_does_not_cost_the_prediction(network, images, tmp_path, thin):
    (tmp_path / "overlays" / "0.png.jpg").mkdir(parents=True)
    asked = ("predict", images / "0.png", images / "1.png", "--network", network, "--device", "cpu")
    done = run(*asked, "--out", tmp_path)
    assert done.returncode == 3
    assert "predicted, but: " in done.stderr
    assert len(predicted(tmp_path)) == 2


def test_a_film_that_cannot_be_read_costs_only_itself(network, images, tmp_path, thin):
    (tmp_path / "a.png").write_bytes((images / "0.png").read_bytes()[:-40])
    asked = ("predict", tmp_path / "a.png", images / "1.png", "--network", network, "--device", "cpu")
    done = run(*asked, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "skipped: " in done.stderr
    assert [Path(film["file"]).name for film in predicted(tmp_path / "out")] == ["1.png"]


@pytest.mark.parametrize("part", ["presence", "points_xy_image", "scores", "covariances"])
def test_an_image_without_finite_numbers_costs_only_itself(network, images, tmp_path, thin, monkeypatch, part):
    predict_films = Predictor.predict_films

    def one_fails(self, films, **options):
        return [
            replace(one, **{part: np.full_like(getattr(one, part), np.nan)})
            if film.file.endswith("2.png")
            else one
            for film, one in zip(films, predict_films(self, films, **options), strict=True)
        ]

    monkeypatch.setattr(Predictor, "predict_films", one_fails)
    asked = ("predict", images, "--network", network, "--device", "cpu", "--report")
    done = run(*asked, "--out", tmp_path)
    assert done.returncode == 3
    assert "2.png: the network gave no finite" in done.stderr
    assert [Path(film["file"]).name for film in predicted(tmp_path)] == [f"{i}.png" for i in (0, 1, 3, 4, 5, 6)]


def test_an_image_that_shows_nothing_is_named_on_the_terminal(network, tmp_path, thin):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((120, 80), np.uint8))
    done = run(
        "predict", tmp_path / "black.png", "--network", network, "--device", "cpu", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert "need a second opinion: 1 of 1 images" in done.stdout
    (film,) = predicted(tmp_path / "out")
    assert film["doubts"] == ["spine not found"]
    assert not any(level["corners"] for level in film["levels"].values())


def test_predictions_from_python_are_those_of_the_command(network, images, tmp_path, thin):
    import vertebra_kp

    paths = sorted(images.iterdir())
    assert run("predict", images, "--network", network, "--device", "cpu", "--out", tmp_path).returncode == 0
    predictor = vertebra_kp.load(network, "cpu")
    found = list(predictor.predict_many(paths, batch_size=1))
    for film, path, prediction in zip(predicted(tmp_path), paths, found, strict=True):
        assert film["file"] == prediction.file == str(path)
        np.testing.assert_allclose(
            film["levels"]["L3"]["corners"]["TL"], prediction.points_xy_image[2, 0], atol=1e-3
        )
    batched = predictor.predict_many(paths, batch_size=3)
    for one, other in zip(found, batched, strict=True):
        np.testing.assert_allclose(one.points_xy_image, other.points_xy_image, atol=0.01)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_that_is_killed_leaves_what_it_had_and_is_resumed(images, tmp_path):
    """With the published weights, as a user would."""
    names = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(names):
        path.write_bytes((images / f"{i}.png").read_bytes())
    command = [sys.executable, "-m", "vertebra_kp", "predict", "--network", "ap-spine", *map(str, names)]
    command += ["--device", "cpu", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    journal, deadline = tmp_path / "out" / FILE, time.monotonic() + 300
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "predictions.json").exists()
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [film["file"] for film in predicted(tmp_path / "out")] == list(map(str, names))


def names_of(paths, done=()):
    items = [Item(Path(path)) for path in paths]
    name_files(items, dict(done))
    return [item.name for item in items]


def test_images_of_one_name_get_files_of_their_own_however_many_they_are():
    started = time.process_time()
    names = names_of(f"folder{i}/a.png" for i in range(20_000))
    assert time.process_time() - started < 5  # quadratic, it takes minutes
    assert names[:3] == ["a.png", "a.png-2", "a.png-3"]
    assert len(set(names)) == 20_000
    assert names_of(["x/a.png-2", "x/A.png", "y/a.PNG", "z/a.png"]) == ["a.png-2", "A.png", "a.PNG-3", "a.png-4"]


def test_a_name_that_leaves_no_room_for_an_ending_is_shortened():
    long = "ä" * 125 + ".png"  # 254 bytes
    first, second = names_of([f"x/{long}", f"y/{long}"])
    assert first == "ä" * 100
    assert second == "ä" * 100 + "-2"
    assert names_of(["x/" + "a" * 200]) == ["a" * 200]


def test_resumed_with_other_images_every_image_keeps_its_files():
    done = {"y/a.png": {"image": {}}, "z/a.png": {"image": {"results_name": "a.png-2"}}}
    assert names_of(["x/a.png", "y/a.png", "z/a.png"], done.items()) == ["a.png-3", "a.png", "a.png-2"]


def test_overlays_of_equal_names_lead_back_to_their_images(network, images, tmp_path, thin):
    for folder, image in (("a", "0.png"), ("b", "1.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.png").write_bytes((images / image).read_bytes())
    out = tmp_path / "out"
    done = run("predict", tmp_path / "a", tmp_path / "b", "--network", network, "--device", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    films = predicted(out)
    names = [film.get("results_name", Path(film["file"]).name) for film in films]
    assert names == ["same.png", "same.png-2"]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == sorted(f"{name}.jpg" for name in names)
