"""Images that have trained a network are counted wherever its config tells of them."""

import json

import pytest

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import SpineConfig
from vertebra_kp.evaluation.seen import training_images

PHASE = {"name": "a", "epochs": 1}


def config(data, *phases):
    values = {"name": "x", "data": {"anatomy": "la_lumbar", **data}, "train": {"phases": [PHASE, *phases]}}
    return Config.model_validate(values, strict=False)


@pytest.fixture
def of_files(tmp_path):
    """A config of images a and b in training, c in validation, d in neither."""
    splits = {"source": "csv", "splits": {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    data = {"source": "csv", "root": str(tmp_path), "split_file": str(tmp_path / "splits.json")}
    return config(data | {"train_splits": ["train"], "validation_splits": ["validation"]})


@pytest.mark.parametrize(("ids", "seen"), [("ab", 2), ("abcd", 2), ("cd", 0)])
def test_images_of_the_training_splits_are_counted(of_files, ids, seen):
    assert training_images([of_files], "csv", None, list(ids)) == seen
    assert training_images([of_files], "json", None, list(ids)) == 0
    assert training_images([of_files], "csv", None, [f"{id}:L3" for id in ids]) == seen  # single vertebrae


def test_synthetic_images_of_a_seed_that_trained_are_counted(of_files):
    own = config({"source": "phantom", "phantom": {"seed": 5}})
    ids = ["phantom-hard-5-0", "phantom-standard-5-1-AP", "phantom-standard-1000003-0"]
    assert training_images([own], "phantom", None, ids) == 2
    assert training_images([of_files], "phantom", None, ids) == 0
    before = of_files.model_copy(
        update={"train": config({}, {"name": "b", "epochs": 1, "films": "phantom"}).train}
    )
    zero = ["phantom-standard-0-3"]
    assert training_images([before], "phantom", None, zero) == 1, "a phase on synthetic images of seed 0"


def test_every_network_of_an_ensemble_and_its_refinement_counts(of_files):
    other = of_files.model_copy(update={"data": of_files.data.model_copy(update={"train_splits": ["test"]})})
    assert training_images([of_files, other], "csv", None, list("abcd")) == 3


def test_a_split_file_that_is_gone_is_said(of_files, tmp_path, caplog):
    (tmp_path / "splits.json").unlink()
    assert training_images([of_files], "csv", None, ["a"]) == 0
    assert "it is not known whether these images have trained the network" in caplog.text


def test_images_of_a_spine_network_are_dealt_as_in_training(tmp_path):
    rows = ["file,patient,spacing_mm,level,corner,x,y,state"]
    for i in range(6):
        rows += [f"{i}.png,p{i},,L{1 + k},{corner},{x},{9 * k + y},labelled" for k in range(2) for corner, x, y in
                 (("TL", 1, 1), ("TR", 9, 1), ("BL", 1, 6), ("BR", 9, 6))]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    from PIL import Image

    for i in range(6):
        Image.new("L", (12, 30)).save(tmp_path / f"{i}.png")
    source = {"source": "csv", "anatomy": "ap_lumbar", "folds": 2}
    values = {"name": "x", "sources": [source], "train": {"steps": 1}}
    spine = SpineConfig.model_validate(values, strict=False)
    ids = [f"{i}.png" for i in range(6)]
    trained = {id for id in ids if training_images([spine], "csv", tmp_path, [id])}
    other = spine.model_copy(update={"fold": 1})
    assert len(trained) == 3
    assert {id for id in ids if training_images([other], "csv", tmp_path, [id])} == set(ids) - trained
