"""Commands as a user types them: every shipped config trains, evaluates and predicts; mistakes get one line."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import REPOSITORY, TINY_PHANTOM, run, run_apart, tiny
from scipy.io import savemat

import vertebra_kp
from vertebra_kp.core.anatomy import SCHEMAS, SLIP_CLASSES, VIEWS, State
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.evaluation.store import checksum


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of a tiny quickstart."""
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    config = "quickstart"
    done = run("train", "--config", config, "--run-dir", folder, "--set", *tiny("quickstart"), *TINY_PHANTOM)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def classifying(tmp_path_factory):
    """The run folder of a tiny network that tells view and slips."""
    folder = tmp_path_factory.mktemp("runs") / "classification"
    config = "classification"
    small = [*tiny("classification"), "data.phantom.films=4", "data.phantom.validation_films=4"]
    done = run("train", "--config", config, "--run-dir", folder, "--set", *small)
    assert done.returncode == 0, done.stderr
    return folder


def film(path, index=0, schema="la_lumbar", size=(120, 80)):
    drawn = draw_film(SCHEMAS[schema], "standard", 7, index, size)
    cv2.imwrite(str(path), drawn.image)
    return drawn


def test_training_leaves_everything_that_other_tools_look_for(trained):
    for name in ("config.yaml", "checkpoints/last.pt", "checkpoints/best.pt", "metrics.json", "metrics.csv"):
        assert (trained / name).stat().st_size > 0
    assert list((trained / "tensorboard").iterdir())
    figures = json.loads((trained / "metrics.json").read_text())["validation"]
    assert figures["mre_px"] > 0
    assert len(figures["mre_px_ci95"]) == 2


def test_an_existing_run_is_refused_and_stays_as_it_is(trained):
    before = (trained / "checkpoints" / "last.pt").read_bytes()
    config = "quickstart"
    refused = run("train", "--config", config, "--run-dir", trained, "--set", *tiny("quickstart"), *TINY_PHANTOM)
    assert refused.returncode == 1
    assert "resume it, overwrite it, or choose another folder" in refused.stderr
    assert (trained / "checkpoints" / "last.pt").read_bytes() == before


def test_evaluate_writes_the_figures_by_the_names_that_other_tools_read(trained, tmp_path):
    best = trained / "checkpoints" / "best.pt"
    done = run(
        "evaluate", "--network", best, "--source", "phantom", "--preset", "hard",
        "--seed", 5, "--num-images", 4, "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["films"] == 4
    for name in (
        "mre_px", "median_px", "mre_percent_diagonal", "median_percent_diagonal", "level_shift_rate",
        "presence_precision", "presence_recall", "cobb_mae_deg", "smape_published", "smape_per_angle",
    ):  # fmt: skip
        assert name in figures
        assert f"{name}_ci95" in figures
    assert len(json.loads((tmp_path / "predictions.json").read_text())["films"]) == 4
    assert cv2.imread(str(tmp_path / "worst_films.png")) is not None


def test_images_that_trained_the_network_are_said(trained, tmp_path):
    best = trained / "checkpoints" / "best.pt"
    asked = ("evaluate", "--network", best, "--source", "phantom", "--num-images", 2, "--out", tmp_path)
    for seed, seen in ((0, 2), (5, 0)):  # 0 is the seed that the config trains on
        done = run(*asked, "--seed", seed)
        assert done.returncode == 0, done.stderr
        assert ("note: 2 of these 2 images trained the network" in done.stdout) == bool(seen)
        figures = json.loads((tmp_path / "metrics.json").read_text())
        assert figures["training_images"] == seen
        assert figures["evaluation_sha256"] == checksum(tmp_path / "evaluation.npz")


def test_classes_are_trained_measured_and_predicted_from_the_command_line(classifying, tmp_path):
    best, out = classifying / "checkpoints" / "best.pt", tmp_path / "measured"
    report = json.loads((classifying / "metrics.json").read_text())["validation"]
    assert report["view"]["counts"] == {"AP": 1, "LA": 3}
    assert "view_top1" in (classifying / "metrics.csv").read_text().splitlines()[0].split(",")
    done = run("evaluate", "--network", best, "--source", "phantom", "--num-images", 10, "--out", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["view"]["counts"] == {"AP": 3, "LA": 7}  # a share of 0.3, as in the config
    assert figures["slip"]["labelled"] == 7 * 5
    assert {"top1", "top2", "macro_f1", "roc_auc", "per_class", "confusion"} <= figures["slip"].keys()
    assert "roc_auc 0.982" in done.stdout
    assert "for reference" in done.stdout
    other = run(
        "evaluate", "--network", best, "--source", "phantom", "--num-images", 4, "--other-view", 0.5,
        "--out", tmp_path / "half",
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert json.loads((tmp_path / "half" / "metrics.json").read_text())["view"]["counts"] == {"AP": 2, "LA": 2}
    refused = run("evaluate", "--network", best, "--source", "phantom", "--other-view", 1, "--out", tmp_path)
    assert refused.returncode == 2
    assert "--other-view: must be 0 or more and below 1, got 1" in refused.stderr

    drawn = film(tmp_path / "film.png")
    done = run("predict", "--network", best, tmp_path / "film.png", "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (predicted,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["films"]
    prediction = vertebra_kp.load(best, "cpu").predict(drawn.image)
    view = prediction.view_probabilities
    assert view.sum() == pytest.approx(1)
    assert predicted["classified_view"]["class"] == VIEWS[view.argmax()]
    assert predicted["classified_view"]["probability"] == pytest.approx(view.max(), abs=1e-3)
    for name, probabilities in zip(list(predicted["levels"])[:-1], prediction.slip_probabilities, strict=False):
        slip = predicted["levels"][name]["slip"]
        assert slip["class"] == SLIP_CLASSES[probabilities.argmax()]
        assert slip["probability"] == pytest.approx(probabilities.max(), abs=1e-3)


def test_the_validation_films_are_measured_again_and_under_another_decoding(trained, tmp_path):
    measure = ["evaluate", "--network", trained / "checkpoints" / "best.pt", "--validation", "--device", "cpu"]
    figures = {}
    for name, settings in (("same", []), ("argmax", ["--set", "codec.decode=argmax"])):
        done = run(*measure, *settings, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        figures[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    of_training = json.loads((trained / "metrics.json").read_text())["validation"]
    assert figures["same"]["mre_px"] == pytest.approx(of_training["mre_px"], abs=1e-3)
    assert abs(figures["argmax"]["mre_px"] - of_training["mre_px"]) > 1e-2
    assert figures["argmax"]["codec"]["decode"] == "argmax"
    refused = run(*measure, "--set", "codec.sigma=3", "train.seed=4", "--out", tmp_path / "refused")
    assert refused.returncode == 1
    assert "codec.sigma, train.seed: the network was trained with another value" in refused.stderr


def test_predict_gives_every_level_and_skips_a_broken_film(trained, tmp_path):
    films = tmp_path / "films with spaces"
    films.mkdir()
    film(films / "Wirbelsäule 1.png")
    (films / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    done = run("predict", "--network", trained / "checkpoints" / "best.pt", films, "--out", out)
    assert done.returncode == 3
    assert "broken.png" in done.stderr
    (predicted,) = json.loads((out / "predictions.json").read_text())["films"]
    assert predicted["file"].endswith("Wirbelsäule 1.png")
    assert predicted["size"] == [120, 80]
    assert predicted["view"] == "LA"
    assert list(predicted["levels"]) == ["L1", "L2", "L3", "L4", "L5", "S1"]
    assert list(predicted["levels"]["L3"]["corners"]) == ["TL", "TR", "BL", "BR"]
    assert list(predicted["levels"]["S1"]["corners"]) == ["TL", "TR"]
    for level in predicted["levels"].values():
        assert level.keys() == {"presence", "corners", "scores", "covariances"}
        assert 0 <= level["presence"] <= 1
        assert level["corners"].keys() == level["scores"].keys() == level["covariances"].keys()
        assert np.array(list(level["corners"].values())).shape[1:] == (2,)
        assert np.array(list(level["covariances"].values())).shape[1:] == (2, 2)
    header, *rows = (out / "predictions.csv").read_text().splitlines()
    assert header == "file,level,presence,corner,x,y,score,var_x,cov_xy,var_y"
    assert len(rows) == 22
    assert len(list((out / "overlays").iterdir())) == 1


def test_from_calibration_to_reports_and_a_comparison(trained, tmp_path):
    best = trained / "checkpoints" / "best.pt"
    phantom = ("--source", "phantom", "--num-images", 10)
    done = run("evaluate", "--network", best, *phantom, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    calibration = tmp_path / "calibration.json"
    done = run(
        "calibrate", "--network", best, "--source", "phantom", "--num-images", 12, "--output-file", calibration
    )
    assert done.returncode == 0, done.stderr
    assert "corners" in done.stdout
    films = tmp_path / "films"
    films.mkdir()
    film(films / "here.png")
    told = ("--report", "--calibration", calibration, "--spacing-mm", 0.5, "--anterior-side", "left")
    done = run("predict", films, "--network", best, "--out", tmp_path / "read", *told)
    assert done.returncode == 0, done.stderr
    assert "Sacral slope" in (tmp_path / "read" / "reports" / "here.png.html").read_text()
    (reading,) = json.loads((tmp_path / "read" / "readings.json").read_text())["films"]
    assert reading["spacing_mm"] == 0.5
    done = run(
        "robustness", "--network", best, *phantom, "--kinds", "inverted", "--calibration", calibration,
        "--out", tmp_path / "one",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wrong_view" in (tmp_path / "one" / "robustness.csv").read_text()
    done = run("report", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert "Robustness" in (tmp_path / "one" / "report.html").read_text()
    done = run("compare", tmp_path / "one", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert "no significant difference" in done.stdout
    sides = (films / "here.png", films / "here.png", "--network", best, "--anterior-side", "left")
    done = run("instability", *sides)
    assert done.returncode == 0, done.stderr
    assert "L5/S1" in done.stdout


def test_a_film_is_predicted_from_python_as_by_the_script(trained, tmp_path):
    drawn = film(tmp_path / "film.png")
    best = trained / "checkpoints" / "best.pt"
    out = tmp_path / "out"
    done = run("predict", "--network", best, tmp_path / "film.png", "--out", out, "--device", "cpu", "--attention")
    assert done.returncode == 0, done.stderr
    with np.load(out / "attention" / "film.png.npz") as attention:
        layers = dict(attention)
    cells = (64 // 32) * (64 // 32)
    assert {name: weights.shape[1:] for name, weights in layers.items()} == {
        f"F4_layer{layer}": (cells, cells) for layer in (1, 2, 3, 4)
    }
    np.testing.assert_allclose(layers["F4_layer1"].sum(axis=-1), 1, atol=1e-5)
    assert cv2.imread(str(out / "attention" / "film.png.png")) is not None
    (by_script,) = json.loads((out / "predictions.json").read_text())["films"]
    first_corner = by_script["levels"]["L1"]["corners"]["TL"]
    predictor = vertebra_kp.load(best, "cpu")
    from_path, from_array = predictor.predict(tmp_path / "film.png"), predictor.predict(drawn.image)
    np.testing.assert_array_equal(from_path.points_xy_image, from_array.points_xy_image)
    np.testing.assert_allclose(from_path.points_xy_image[0, 0], first_corner, atol=0.01)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        predictor.predict(drawn.image / 255)


def test_a_place_that_cannot_be_written_is_told_before_the_work(trained, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    film(tmp_path / "film.png")
    checkpoint = ["--network", trained / "checkpoints" / "best.pt"]
    for done in (
        run("predict", *checkpoint, tmp_path / "film.png", "--out", tmp_path / "file"),
        run("evaluate", *checkpoint, "--source", "phantom", "--out", tmp_path / "file"),
        run("train", "--config", "quickstart", "--run-dir", tmp_path / "file"),
    ):
        assert done.returncode == 1
        assert str(tmp_path / "file") in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "train.sede=1"], "did you mean train.seed"),
        (["--set", "data.source=aasce", "data.anatomy=ap_whole_spine"], "split_file"),
        (
            ["--set", "data.source=aasce", "data.anatomy=ap_whole_spine", "data.root=no/such",
             "data.split_file=aasce", "data.train_splits=[fold1]", "data.validation_splits=[fold0]"],
            "no/such",
        ),
        (
            ["--set", "data.source=csv", "data.root=no/such", "data.split_file=aasce",
             "data.train_splits=[fold1]", "data.validation_splits=[fold0]"],
            "splits the films of aasce",
        ),
        (["--set", "network.backbone.weights=no_such.pt"], "no_such.pt"),
        (["--resume"], "last.pt"),
    ],
)  # fmt: skip
def test_a_mistake_gives_one_line_and_no_traceback(tmp_path, arguments, told):
    config = "quickstart"
    done = run("train", "--config", config, "--run-dir", tmp_path / "run", *arguments)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_that_is_none_is_told(tmp_path):
    (tmp_path / "no.pt").write_text("no checkpoint")
    done = run("predict", "--network", tmp_path / "no.pt", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def write_buu(root, folder, schema, films):
    """BUU-LSPINE's layout from phantom films: endplate rows ``x1,y1,x2,y2`` in pixel indices."""
    (root / folder).mkdir(parents=True)
    for i in range(films):
        name = f"{i:04d}-F-0{30 + i}Y{int(folder == 'LA')}"
        drawn = film(root / folder / f"{name}.jpg", i, schema, (300, 250))
        rows = []
        for level, states in zip(drawn.points_xy_image, drawn.states, strict=True):
            for left, right in ((0, 1), (2, 3)):
                if states[left] == State.LABELLED:
                    rows.append(",".join(f"{v:.2f}" for v in np.r_[level[left], level[right]] - 0.5))
        (root / folder / f"{name}.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "schema", "config"),
    [("AP", "ap_lumbar", "buu_lspine_ap"), ("LA", "la_lumbar", "buu_lspine_la")],
)
def test_the_buu_lspine_configs_train_and_evaluate_from_the_readme_commands(tmp_path, folder, schema, config):
    root, split = tmp_path / "data", tmp_path / "splits" / "mine.json"
    write_buu(root, folder, schema, 12)
    made = run(
        "split", "--source", "buu_lspine", "--anatomy", schema, "--root", root,
        "--calibration-images", 2, "--output-file", split,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    overrides = [*tiny(config), f"data.root={root}", f"data.split_file={split}"]
    done = run("train", "--config", config, "--run-dir", tmp_path / "run", "--set", *overrides)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    # Folder and split file are those of the training.
    out = tmp_path / "out"
    measured = run("evaluate", "--network", best, "--source", "buu_lspine", "--split", "fold0", "--out", out)
    assert measured.returncode == 0, measured.stderr
    assert json.loads((out / "metrics.json").read_text())["films"] == 2
    for predicted in json.loads((out / "predictions.json").read_text())["films"]:
        assert Path(predicted["file"]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["aasce", "aasce_cpu"])
def test_the_aasce_configs_train_on_the_real_films(tmp_path, config):
    default = REPOSITORY.parent / "shared" / "data" / "aasce" / "boostnet_labeldata"
    root = Path(os.environ.get("VERTEBRA_KP_AASCE", default))
    if not root.is_dir():
        pytest.skip(f"AASCE is not at {root}; name its folder in VERTEBRA_KP_AASCE")
    small = [*tiny(config), f"data.root={root}", "train.batch_size=64"]
    done = run("train", "--config", config, "--run-dir", tmp_path / "run", "--set", *small)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]
    assert figures["films"] == 85
    assert figures["cobb_mae_deg"] is not None


def write_aasce(root, part, films):
    """AASCE's layout from phantom films, corners in Matlab's indices."""
    for folder in ("data", "labels"):
        (root / folder / part).mkdir(parents=True)
    for i in range(films):
        name = f"sunhl-1th-01-Jan-2017-{i} A AP.jpg"
        drawn = film(root / "data" / part / name, i, "ap_whole_spine", (400, 200))
        savemat(root / "labels" / part / f"{name}.mat", {"p2": drawn.points_xy_image.reshape(68, 2) + 0.5})


def test_the_test_part_of_aasce_is_measured_and_called_what_it_is(tmp_path):
    root = tmp_path / "boostnet_labeldata"
    write_aasce(root, "training", 4)
    write_aasce(root, "test", 2)
    split = tmp_path / "splits" / "mine.json"
    ids = [f"sunhl-1th-01-Jan-2017-{i} A AP.jpg" for i in range(4)]
    split.parent.mkdir()
    split.write_text(json.dumps({"source": "aasce", "splits": {"one": ids[:2], "two": ids[2:]}}))
    config = "aasce_cpu"
    splits = [f"data.split_file={split}", "data.train_splits=[one]", "data.validation_splits=[two]"]
    done = run(
        "train", "--config", config, "--run-dir", tmp_path / "run",
        "--set", *tiny("aasce_cpu"), *splits, f"data.root={root}", "data.repair_file=null",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    for part, note in (["test"], False), (["two"], False), ([], True):
        out = tmp_path / f"out {part}"
        which = ["--split", *part] if part else []
        measured = run("evaluate", "--network", best, "--source", "aasce", *which, "--out", out)
        assert measured.returncode == 0, measured.stderr
        assert json.loads((out / "metrics.json").read_text())["films"] == (2 if part else 4)
        assert ("may have trained" in measured.stdout) == note


@pytest.mark.slow
def test_own_films_train_from_the_readme_commands_and_on_two_processes(tmp_path):
    films, split, folder = tmp_path / "films", tmp_path / "splits" / "own.json", tmp_path / "run"
    for arguments in (
        ["phantom", "--anatomy", "la_lumbar", "--num-images", 12, "--size", 128, 64, "--out", films],
        ["split", "--source", "csv", "--anatomy", "la_lumbar", "--root", films, "--output-file", split],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    overrides = [*tiny("own_films"), f"data.root={films}", f"data.split_file={split}"]
    train = ["--config", "own_films", "--run-dir", folder, "--device", "cpu"]
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = run_apart("train", *train, "--set", *overrides, launcher=two)
    assert done.returncode == 0, done.stderr
    first = json.loads((folder / "metrics.json").read_text())
    assert first["validation"]["films"] > 0
    resumed = run_apart("train", *train, "--resume", "--set", *overrides, launcher=two)  # nothing is left to do
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((folder / "metrics.json").read_text())["best_step"] == first["best_step"]


def test_a_phantom_folder_is_read_back_as_csv_source(trained, tmp_path):
    folder = tmp_path / "films"
    made = run(
        "phantom", "--anatomy", "la_lumbar", "--preset", "standard", "--seed", 3, "--num-images", 3,
        "--size", 128, 64, "--out", folder,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    measured = run(
        "evaluate", "--network", trained / "checkpoints" / "best.pt", "--source", "csv",
        "--root", folder, "--out", tmp_path / "out",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["mre_mm"] is not None
