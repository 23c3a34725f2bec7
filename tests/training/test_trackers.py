"""The same curves, pictures and identity in every tracker, read back with the trackers' own libraries."""

import contextlib
import importlib.util
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_job import ONE_PROCESS, thin_efficientnet, tiny_config

from vertebra_kp.config.differences import differences, flat_config
from vertebra_kp.config.schema import Config
from vertebra_kp.core.errors import UserError
from vertebra_kp.models import library
from vertebra_kp.training import loop, trackers
from vertebra_kp.training.loop import train
from vertebra_kp.training.run_folder import RunFolder
from vertebra_kp.training.trackers import Identity, Mlflow, TensorBoard, Wandb

CONFIG = tiny_config(films=4, trackers=["tensorboard", "mlflow", "wandb"], save_every_steps=1)
STEPS = [1, 2, 3, 4]  # two batches of two films in each of two phases


@pytest.fixture(autouse=True)
def local_trackers(monkeypatch):
    """Nothing leaves the machine, whatever the environment of the tests says."""
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_RUN_ID",
        "WANDB_PROJECT",
        "WANDB_RUN_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")  # given back after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")


def mlflow_runs(run_dir: Path) -> list:
    from mlflow import MlflowClient

    client = MlflowClient((run_dir / "mlflow").resolve().as_uri())
    return client.search_runs([client.get_experiment_by_name("vertebra_kp").experiment_id])


def mlflow_curve(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient((run_dir / "mlflow").resolve().as_uri())
    return [(m.step, m.value) for m in client.get_metric_history(mlflow_runs(run_dir)[0].info.run_id, tag)]


def tensorboard_events(run_dir: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(events, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def wandb_records(run_dir: Path) -> list:
    """What ``wandb sync`` would send, file by file in the order of their making."""
    from wandb.proto import wandb_internal_pb2

    return [
        wandb_internal_pb2.Record.FromString(data)
        for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))
        for data in log_records(path.read_bytes())
    ]


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format: blocks of 32 KiB, each piece behind its checksum, length and kind."""
    at, record = 7, b""  # behind the file's own header, which belongs to the first block
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # too little for a piece: the block's end is padding
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def wandb_rows(run_dir: Path) -> list[dict[str, str]]:
    """Logged values as JSON text, by tag."""
    return [
        {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        for record in wandb_records(run_dir)
        if record.HasField("history")
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Interrupted after three steps and resumed, in a folder whose name needs quoting in an address."""
    run_dir = tmp_path_factory.mktemp("runs") / "ein Lauf #1"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        real = loop.train_step

        def stopped(run, state, *arguments):
            if state.step == 3:
                raise KeyboardInterrupt
            return real(run, state, *arguments)

        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, run_dir, ONE_PROCESS)
        (interrupted,) = mlflow_runs(run_dir)
        assert interrupted.info.status == "KILLED"
        patch.setattr(loop, "train_step", real)
        train(CONFIG, run_dir, ONE_PROCESS, resume=True)
    torch.set_num_threads(threads)
    return run_dir


def test_a_resumed_training_is_one_finished_mlflow_run_with_the_settings_of_the_config(trained):
    (run,) = mlflow_runs(trained)
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert run.data.tags["run_dir"] == str(trained.resolve())
    assert run.data.params == {key: str(value) for key, value in flat_config(CONFIG).items()}


def test_mlflow_holds_the_curves_of_tensorboard(trained):
    events = tensorboard_events(trained)
    tags = events.Tags()["scalars"]
    assert {"train/total", "lr/decoder", "val/mre_px", "phase", "hparam/mre_px"} <= set(tags)
    for tag in tags:
        expected = [(step, pytest.approx(value)) for step, value in sorted(scalars(events, tag))]
        assert sorted(mlflow_curve(trained, tag)) == expected, tag
    assert [step for step, _ in mlflow_curve(trained, "train/total")] == STEPS


def test_mlflow_holds_the_pictures_of_tensorboard(trained):
    from mlflow import MlflowClient

    events = tensorboard_events(trained)
    expected = {(tag, e.step) for tag in events.Tags()["images"] for e in events.Images(tag)}
    assert ("films/heatmaps", 2) in expected
    client = MlflowClient((trained / "mlflow").resolve().as_uri())
    paths = [file.path for file in client.list_artifacts(mlflow_runs(trained)[0].info.run_id, "images")]
    named = {tuple(Path(path).stem.split("+")[:3:2]) for path in paths if path.endswith(".png")}
    assert named == {(tag.replace("/", "~"), str(step)) for tag, step in expected}


def test_wandb_holds_one_run_with_the_same_curves_and_pictures(trained):
    runs = [record.run for record in wandb_records(trained) if record.HasField("run")]
    assert {(run.display_name, run.project) for run in runs} == {("tiny", "vertebra_kp")}
    assert len({run.run_id for run in runs}) == 1
    rows = wandb_rows(trained)
    events = tensorboard_events(trained)
    for tag in events.Tags()["scalars"]:
        mine = sorted((int(row["step"]), float(row[tag])) for row in rows if tag in row)
        assert mine == [(step, pytest.approx(value)) for step, value in sorted(scalars(events, tag))], tag
    for tag in events.Tags()["images"]:
        assert {int(row["step"]) for row in rows if tag in row} == {e.step for e in events.Images(tag)}, tag


def identity(run_dir: Path, resume_step: int | None = None) -> Identity:
    return Identity("a_run", RunFolder(run_dir), {"train.seed": 3, "data.root": "None"}, resume_step)


def test_what_a_resumed_run_repeats_is_in_mlflow_once(tmp_path):
    first = Mlflow(identity(tmp_path))
    for step in (1, 2, 3):
        first.scalars(step, {"train/total": 10.0 - step})
    first.close()
    resumed = Mlflow(identity(tmp_path, resume_step=1))
    for step in (2, 3, 4):
        resumed.scalars(step, {"train/total": 10.0 - step, "val/mre_px": float(step)})
    resumed.finish(4, {"hparam/mre_px": 4.0})
    resumed.close()
    assert mlflow_curve(tmp_path, "train/total") == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0)]
    assert mlflow_curve(tmp_path, "val/mre_px") == [(2, 2.0), (3, 3.0), (4, 4.0)]


def test_a_run_that_starts_anew_is_a_new_one_in_mlflow(tmp_path):
    for _ in range(2):
        Mlflow(identity(tmp_path)).close()
    assert len(mlflow_runs(tmp_path)) == 2


def test_a_run_that_its_mlflow_store_does_not_know_is_not_resumed(tmp_path, monkeypatch):
    Mlflow(identity(tmp_path / "run")).close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    with pytest.raises(UserError, match=r"train\.trackers: MLflow .*not found.*MLFLOW_TRACKING_URI"):
        Mlflow(identity(tmp_path / "run", resume_step=1))


def test_an_mlflow_that_fails_ends_its_log_and_not_the_training(tmp_path, caplog):
    log = Mlflow(identity(tmp_path))
    log.scalars(1, {"a": 1.0})
    log.scalars(2, {"not a name: #": 1.0})
    log.scalars(3, {"a": 1.0})
    log.images(3, {"films/worst": np.zeros((4, 4, 3), np.uint8)})
    log._failed = False  # so that the run, which is global in MLflow, is closed
    log.close()
    assert mlflow_curve(tmp_path, "a") == [(1, 1.0)]
    assert caplog.text.count("nothing more of this training is logged there") == 1


def test_wandb_without_a_login_says_how_to_go_on(tmp_path, monkeypatch):
    import wandb

    def refused(**_):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refused)
    with pytest.raises(UserError, match=r"train\.trackers: W&B .*API key.*WANDB_MODE"):
        Wandb(identity(tmp_path))


def test_a_missing_package_is_said_before_films_are_read_or_an_old_run_is_removed(tmp_path, monkeypatch):
    old = tmp_path / "metrics.json"
    old.write_text("{}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else object())
    monkeypatch.setattr(loop, "training_films", lambda _: pytest.fail("films were read"))
    with pytest.raises(UserError, match=r"wandb is not installed; pip install 'vertebra_kp\[wandb\]'"):
        train(CONFIG, tmp_path, ONE_PROCESS, overwrite=True)
    assert old.exists()


def test_where_one_tracker_cannot_be_opened_the_others_are_closed(tmp_path, monkeypatch):
    closed = []

    class Opened:
        def __init__(self, _) -> None: ...

        def close(self) -> None:
            closed.append(self)

    def refused(_):
        raise UserError("no")

    monkeypatch.setitem(trackers.BACKENDS, "tensorboard", Opened)
    monkeypatch.setitem(trackers.BACKENDS, "mlflow", refused)
    with pytest.raises(UserError):
        loop.Tracker(RunFolder(tmp_path), CONFIG)
    assert len(closed) == 1


def test_trackers_are_no_difference_between_runs_and_old_configs_have_the_one_of_then():
    old = CONFIG.model_dump(mode="json")
    del old["train"]["trackers"]
    before = Config.model_validate(old)
    assert before.train.trackers == ["tensorboard"]
    assert differences(before, CONFIG) == {}


def test_curves_that_cannot_be_written_are_one_line(tmp_path, capfd):
    before = threading.excepthook
    board = TensorBoard(Identity("run", RunFolder(tmp_path), {}, None))
    shutil.rmtree(tmp_path / "tensorboard")

    def log_until_told():
        for step in range(100):
            board.scalars(step, {"train/total": 1.0})
            time.sleep(0.01)  # a thread of TensorBoard's writes

    with pytest.raises(UserError, match=r"tensorboard takes no more curves \(No such file"):
        log_until_told()
    with contextlib.suppress(UserError):
        board.close()
    assert capfd.readouterr().err == ""
    assert threading.excepthook == before
