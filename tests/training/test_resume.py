"""A run that was stopped and resumed ends bit-equal to the one that was never stopped."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_job import ONE_PROCESS, ROOT, thin_efficientnet, tiny_config

from vertebra_kp.cli.main import main
from vertebra_kp.config.io import save_config
from vertebra_kp.config.schema import Config
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.models import library
from vertebra_kp.training import loop as engine
from vertebra_kp.training.run_folder import RunFolder

STEPS = 8  # four frozen, four unfrozen; an evaluation after step 4 and after step 8
CONFIG = tiny_config(save_every_steps=3)


@pytest.fixture(autouse=True, scope="module")
def one_thread_and_a_thin_backbone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> RunFolder:
    path = tmp_path_factory.mktemp("undisturbed")
    return start(path)


def start(path: Path, *, resume: bool = False) -> RunFolder:
    engine.train(CONFIG, path, ONE_PROCESS, resume=resume)
    return RunFolder(path)


def rows(folder: RunFolder) -> list[dict[str, str]]:
    with (folder.path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(resumed: RunFolder, undisturbed: RunFolder, steps: int = STEPS) -> None:
    """Weights, average, moments, random numbers and evaluations: bit by bit."""
    for name in ("last", "best"):
        mine, theirs = (load_checkpoint(getattr(folder, name)) for folder in (resumed, undisturbed))
        assert mine.step == theirs.step
        for part in ("network", "average", "moments", "random"):
            torch.testing.assert_close(getattr(mine, part), getattr(theirs, part), rtol=0, atol=0)
        assert {**mine.progress, "seconds": 0} == {**theirs.progress, "seconds": 0}
    assert load_checkpoint(resumed.last).step == steps
    assert rows(resumed) == rows(undisturbed)


def signal_after(monkeypatch, step: int) -> None:
    """SIGTERM comes while the loop is in this step, counted from 1."""
    real = engine.train_step

    def train_step(run, state, *arguments):
        losses = real(run, state, *arguments)
        if state.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses

    monkeypatch.setattr(engine, "train_step", train_step)


# --- in this process ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(2, id="in the frozen phase"),
        pytest.param(4, id="at the boundary of the phases"),
        pytest.param(6, id="in the unfrozen phase"),
    ],
)
def test_a_run_stopped_by_a_signal_and_resumed_equals_the_undisturbed_one(
    undisturbed, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        signal_after(patch, step)
        with pytest.raises(engine.Interrupted, match=f"after step {step}$"):
            start(tmp_path)
    assert load_checkpoint(RunFolder(tmp_path).last).step == step
    assert not RunFolder(tmp_path).metrics.exists()
    torch.manual_seed(999)  # what a new process happens to have drawn does not matter
    assert_same_run(start(tmp_path, resume=True), undisturbed)


def test_a_run_stopped_twice_equals_the_undisturbed_one(undisturbed, tmp_path, monkeypatch):
    for attempt, step in enumerate((1, 5)):
        with monkeypatch.context() as patch:
            signal_after(patch, step)
            with pytest.raises(engine.Interrupted):
                start(tmp_path, resume=attempt > 0)
    assert_same_run(start(tmp_path, resume=True), undisturbed)


def test_a_run_killed_between_an_evaluation_and_its_checkpoint_writes_no_row_twice(
    undisturbed, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    real = engine.save_checkpoint

    def save_checkpoint(checkpoint, path):
        if checkpoint.step == 4 and path.name == "last.pt":
            raise Killed
        real(checkpoint, path)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "save_checkpoint", save_checkpoint)
        with pytest.raises(Killed):
            start(tmp_path)
    folder = RunFolder(tmp_path)
    assert [row["step"] for row in rows(folder)] == ["4"]  # already written, and will be again
    assert load_checkpoint(folder.last).step == 3  # save_every_steps
    assert_same_run(start(tmp_path, resume=True), undisturbed)


def test_the_undisturbed_run_evaluates_after_each_epoch_and_moves_all_weights(undisturbed):
    assert [(row["step"], row["phase"]) for row in rows(undisturbed)] == [("4", "frozen"), ("8", "unfrozen")]
    last = load_checkpoint(undisturbed.last)
    assert set(last.moments) == {name for name in last.network if name in last.moments}
    assert any(name.startswith("backbone.blocks.0.") for name in last.moments)
    assert not torch.equal(
        last.network["backbone.blocks.6.0.block.0.0.weight"],
        last.average["backbone.blocks.6.0.block.0.0.weight"],
    )


def test_a_finished_run_can_be_resumed_and_only_reports_again(undisturbed):
    before = load_checkpoint(undisturbed.last)
    undisturbed.metrics.unlink()
    start(undisturbed.path, resume=True)
    assert undisturbed.metrics.is_file()
    torch.testing.assert_close(load_checkpoint(undisturbed.last).network, before.network, rtol=0, atol=0)


def test_signals_are_handled_as_before_once_the_loop_is_left():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with engine.signals_caught() as caught:
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# --- by the command line --------------------------------------------------------------------------------


def test_the_command_exits_with_75_on_sigterm_and_with_0_after_resuming(
    undisturbed, tmp_path, monkeypatch, capsys
):
    save_config(CONFIG, tmp_path / "job.yaml")
    command = ["train", "--config", str(tmp_path / "job.yaml"), "--run-dir", str(tmp_path / "run")]

    def exit_code(*more: str) -> int:
        return main([*command, "--device", "cpu", *more])

    with monkeypatch.context() as patch:
        signal_after(patch, 5)
        assert exit_code() == 75
    assert "signal 15 after step 5; --resume" in capsys.readouterr().err
    assert exit_code() == 1  # neither --resume nor --overwrite
    assert "already holds a run" in capsys.readouterr().err
    assert exit_code("--resume") == 0
    assert_same_run(RunFolder(tmp_path / "run"), undisturbed)


def launch(config: Config, run_dir: Path, *options: str) -> subprocess.Popen:
    save_config(config, run_dir.with_suffix(".yaml"))
    command = [sys.executable, "-m", "vertebra_kp", "train", "--device", "cpu"]
    command += ["--config", str(run_dir.with_suffix(".yaml")), "--run-dir", str(run_dir), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # A session of its own: a signal to its group reaches the loader's workers too, as from a job scheduler.
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for_a_new_checkpoint(process: subprocess.Popen, path: Path, older: float, timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not (path.is_file() and path.stat().st_mtime > older):
        assert process.poll() is None, f"the run ended with {process.returncode} before its next checkpoint"
        assert time.monotonic() < end, f"no checkpoint within {timeout_s} s"
        time.sleep(0.02)


@pytest.mark.slow  # six processes with the whole network, two to three minutes
def test_processes_stopped_by_sigterm_and_sigkill_in_both_phases_end_like_the_undisturbed_one(tmp_path):
    config = tiny_config(films=24, save_every_steps=2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert launch(config, whole).wait(600) == 0
    last = RunFolder(stopped).last
    for attempt, number in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
        older = last.stat().st_mtime if attempt else 0.0
        process = launch(config, stopped, *(["--resume"] if attempt else []))
        wait_for_a_new_checkpoint(process, last, older)
        wait_for_a_new_checkpoint(process, last, last.stat().st_mtime)  # somewhere behind it
        process.send_signal(number)
        assert process.wait(600) == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    assert launch(config, stopped, "--resume").wait(600) == 0
    assert_same_run(RunFolder(stopped), RunFolder(whole), steps=24)


@pytest.mark.slow  # two processes with the whole network and loader workers
def test_a_signal_to_the_whole_process_group_still_writes_a_checkpoint(tmp_path):
    config = tiny_config(films=24, save_every_steps=2)
    config = config.model_copy(update={"data": config.data.model_copy(update={"workers": 2})})
    process = launch(config, tmp_path / "run")
    last = RunFolder(tmp_path / "run").last
    wait_for_a_new_checkpoint(process, last, 0.0)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(600) == 75
    assert load_checkpoint(last).step > 0
