"""When a run folder may be used, and what is removed from it."""

import json

import pytest
from tiny_job import UNFROZEN, tiny_config

from vertebra_kp.config.differences import flat_config
from vertebra_kp.config.io import load_config
from vertebra_kp.config.schema import Config
from vertebra_kp.core.files import write_json
from vertebra_kp.training.run_folder import RunFolderError, lock_run_folder, open_run_folder


def started(path, config: Config, *, steps: bool = True):
    folder = open_run_folder(path, config)
    if steps:
        folder.last.parent.mkdir()
        folder.last.write_bytes(b"checkpoint")
    return folder


def changed(config: Config, section: str, **fields) -> Config:
    part = getattr(config, section).model_copy(update=fields)
    return config.model_copy(update={section: part})


def test_a_new_folder_gets_the_resolved_config(tmp_path):
    config = tiny_config(patience=3)
    folder = open_run_folder(tmp_path / "runs" / "a", config)
    assert load_config(folder.config) == config
    assert [item.name for item in folder.path.iterdir()] == ["config.yaml"]


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    with lock_run_folder(tmp_path / "run"):
        with pytest.raises(RunFolderError, match="another process trains in"), lock_run_folder(tmp_path / "run"):
            pass
        lock_run_folder(tmp_path / "other")
    with lock_run_folder(tmp_path / "run"):
        pass


def test_a_folder_with_other_things_in_it_is_used_and_they_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_run_folder(tmp_path, tiny_config())
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["config.yaml", "checkpoints", "metrics.json", "metrics.csv", "tensorboard", "mlflow", "trackers.json"]
)
def test_a_folder_that_holds_any_part_of_a_run_is_refused_with_the_three_ways_out(tmp_path, name):
    item = tmp_path / name
    item.touch() if "." in name else item.mkdir()
    with pytest.raises(RunFolderError, match="already holds a run") as caught:
        open_run_folder(tmp_path, tiny_config())
    assert "resume it, overwrite it, or choose another folder" in str(caught.value)
    assert item.exists()


def test_overwrite_removes_only_what_a_run_writes(tmp_path):
    folder = started(tmp_path, tiny_config())
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").touch()
    folder.metrics.write_text("{}")
    (tmp_path / "metrics.csv").touch()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "figures").mkdir()
    config = tiny_config(seed=4)
    open_run_folder(tmp_path, config, overwrite=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["config.yaml", "figures", "notes.txt"]
    assert load_config(folder.config).train.seed == 4


def test_resume_takes_the_same_config_and_leaves_the_folder_as_it_is(tmp_path):
    config = tiny_config()
    folder = started(tmp_path, config)
    before = folder.config.read_bytes()
    assert open_run_folder(tmp_path, config, resume=True).path == folder.path
    assert folder.config.read_bytes() == before
    assert folder.last.read_bytes() == b"checkpoint"


def test_resume_of_a_run_that_never_started_says_to_start_it(tmp_path):
    with pytest.raises(RunFolderError, match="start the run without resuming"):
        open_run_folder(tmp_path / "nothing", tiny_config(), resume=True)


def test_a_run_that_stopped_before_its_first_checkpoint_is_told_a_way_that_works(tmp_path):
    started(tmp_path, tiny_config(), steps=False)
    with pytest.raises(RunFolderError, match="overwrite the run to start anew"):
        open_run_folder(tmp_path, tiny_config(), resume=True)


def test_resume_with_another_config_names_every_key_with_both_values(tmp_path):
    config = tiny_config()
    folder = started(tmp_path, config)
    other = tiny_config(phases=(config.train.phases[0].model_dump(), UNFROZEN | {"lr": 0.25}), batch_size=4)
    other = changed(other, "data", input_size=(96, 64))
    with pytest.raises(RunFolderError) as caught:
        open_run_folder(tmp_path, other, resume=True)
    text = str(caught.value)
    assert "train.batch_size: 2 in the run, 4 now" in text
    assert "train.phases.1.lr: 0.001 in the run, 0.25 now" in text
    assert "data.input_size: [64, 64] in the run, [96, 64] now" in text
    assert text.count(" in the run, ") == 3
    assert load_config(folder.config) == config


def test_a_phase_more_or_less_is_a_difference(tmp_path):
    started(tmp_path, tiny_config())
    more = tiny_config(phases=(*[p.model_dump() for p in tiny_config().train.phases], UNFROZEN | {"name": "more"}))
    with pytest.raises(RunFolderError, match=r"train\.phases\.2\.name: None in the run, more now"):
        open_run_folder(tmp_path, more, resume=True)


def test_resume_on_another_machine_may_name_its_own_folder_workers_intervals_and_trackers(tmp_path):
    config = tiny_config()
    started(tmp_path, config)
    other = changed(config, "data", root=tmp_path, workers=5)
    other = changed(other, "train", save_every_steps=3, log_every_steps=1, trackers=["mlflow"])
    open_run_folder(tmp_path, other, resume=True)


def test_the_flat_config_holds_every_value_once_under_its_dotted_key():
    flat = flat_config(tiny_config(seed=9))
    assert flat["train.seed"] == 9
    assert flat["train.phases.0.freeze_stages"] == 4
    assert flat["data.input_size"] == [64, 64]
    assert not any(isinstance(value, dict) for value in flat.values())


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_json({"mre_px": 1.5}, path)
    with pytest.raises(ValueError, match="JSON"):
        write_json({"mre_px": float("nan")}, path)
    assert json.loads(path.read_text()) == {"mre_px": 1.5}
    assert list(path.parent.iterdir()) == [path]
