"""Checkpoints: complete, atomic, and read without running code."""

import dataclasses
import os
import pickle

import pytest
import torch
from tiny_job import ONE_PROCESS, make_run, thin_efficientnet, tiny_config, train_all

from vertebra_kp.inference.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    moments_by_name,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from vertebra_kp.models import library
from vertebra_kp.training.state import checkpoint_of, restore


def small_checkpoint(step: int = 7, **fields) -> Checkpoint:
    weights = {"layer.weight": torch.randn(3, 5, generator=torch.Generator().manual_seed(step))}
    moments = {"layer.weight": {"step": torch.tensor(float(step)), "exp_avg": torch.ones(3, 5)}}
    progress = {"best_error": float("inf"), "best_step": 0}
    content = {"config": {"name": "x", "sizes": [256, 128]}, "step": step, "network": weights, "average": None}
    content |= {"moments": moments, "scaler": {}, "random": [random_state()], "progress": progress}
    return Checkpoint(**(content | fields))


def test_what_is_saved_is_loaded_bit_equal(tmp_path):
    saved = small_checkpoint()
    save_checkpoint(saved, tmp_path / "new" / "last.pt")
    loaded = load_checkpoint(tmp_path / "new" / "last.pt")
    for part in ("network", "moments", "random"):
        torch.testing.assert_close(getattr(loaded, part), getattr(saved, part), rtol=0, atol=0)
    for part in ("config", "step", "average", "scaler", "progress", "format"):
        assert getattr(loaded, part) == getattr(saved, part)


def test_the_moving_average_predicts_where_there_is_one():
    average = {"layer.weight": torch.zeros(3, 5)}
    assert small_checkpoint(average=average).weights is average
    alone = small_checkpoint()
    assert alone.weights is alone.network


@pytest.mark.parametrize("fails_in", ["save", "fsync", "replace"])
def test_a_crash_while_saving_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch, fails_in):
    path = tmp_path / "last.pt"
    save_checkpoint(small_checkpoint(step=7), path)

    def crash(*arguments):
        if fails_in == "save":
            arguments[1].write(b"half a file")
        raise OSError("disk full")

    owner = torch if fails_in == "save" else os
    monkeypatch.setattr(owner, fails_in, crash)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(small_checkpoint(step=8), path)
    monkeypatch.undo()
    assert load_checkpoint(path).step == 7
    save_checkpoint(small_checkpoint(step=9), path)  # what the crash left behind is in nobody's way
    assert load_checkpoint(path).step == 9
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_the_file_is_flushed_to_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real_fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), real_replace(*paths)))
    save_checkpoint(small_checkpoint(), tmp_path / "last.pt")
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "foreign", "old format", "incomplete"])
def test_a_file_that_cannot_be_used_is_named(tmp_path, kind):
    path = tmp_path / "last.pt"
    content = {field.name: getattr(small_checkpoint(), field.name) for field in dataclasses.fields(Checkpoint)}
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "foreign":
        torch.save({"model": torch.zeros(2)}, path)
    elif kind == "old format":
        torch.save(content | {"format": 0}, path)
    elif kind == "incomplete":
        torch.save({key: value for key, value in content.items() if key != "moments"}, path)
    elif kind == "truncated":
        save_checkpoint(small_checkpoint(), path)
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.pt: "):
        load_checkpoint(path)


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "config": _Attack()}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(_Attack()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_random_numbers_continue_where_they_were_saved():
    torch.manual_seed(99)
    torch.rand(3)
    saved = random_state()
    expected = torch.rand(5)
    torch.manual_seed(1)
    restore_random_state(saved)
    assert torch.equal(torch.rand(5), expected)


def test_a_trained_state_comes_back_complete_from_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    config = tiny_config(films=4)
    run, state = make_run(config)
    train_all(run, state)
    state.progress.best_error, state.progress.best_step = 12.5, 3
    save_checkpoint(checkpoint_of(state, config, ONE_PROCESS), tmp_path / "last.pt")
    random_before = torch.get_rng_state()

    _, other = make_run(config.model_copy(update={"train": config.train.model_copy(update={"seed": 5})}))
    restore(other, load_checkpoint(tmp_path / "last.pt"), ONE_PROCESS)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert (other.step, other.progress) == (4, state.progress)
    assert other.average.n_averaged == state.average.n_averaged == 4
    for mine, theirs in (
        (state.network.state_dict(), other.network.state_dict()),
        (state.average.module.state_dict(), other.average.module.state_dict()),
        (moments_by_name(state.optimiser, state.network), moments_by_name(other.optimiser, other.network)),
    ):
        torch.testing.assert_close(theirs, mine, rtol=0, atol=0)


def test_another_number_of_processes_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    _, state = make_run(tiny_config())
    two = small_checkpoint(random=[random_state(), random_state()])
    with pytest.raises(ValueError, match="had 2 processes, now there are 1"):
        restore(state, two, ONE_PROCESS)
