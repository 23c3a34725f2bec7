"""Checkpoints: complete, atomic, and read without running code."""

import dataclasses
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_job import ONE_PROCESS, PATHS, make_run, thin_efficientnet, tiny_config, train_all

from vertebra_kp.inference.checkpoint import (
    Checkpoint,
    load_checkpoint,
    moments_by_name,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.network_file import CheckpointError
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


# --- checksums, sizes, full disks -------------------------------------------------------------------------


def same(one, other):
    return all(torch.equal(one.network[name], other.network[name]) for name in one.network) and (
        dataclasses.replace(one, network={}, moments={}, random=[])
        == dataclasses.replace(other, network={}, moments={}, random=[])
    )


def test_a_flipped_bit_is_found_wherever_it_counts(tmp_path):
    path, saved = tmp_path / "last.pt", small_checkpoint()
    save_checkpoint(saved, path)
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    refused = 0
    for at in rng.integers(0, 8 * len(whole), 300):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            assert same(load_checkpoint(path), saved), "what is loaded is what was saved: the bit was padding"
        except CheckpointError as error:
            refused += "\n" not in str(error)
    assert refused > 200


def test_another_checkpoint_that_is_whole_is_named(tmp_path):
    save_checkpoint(small_checkpoint(step=6), tmp_path / "best.pt")
    save_checkpoint(small_checkpoint(step=7), tmp_path / "last.pt")
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read .*; best\.pt beside it is whole"):
        load_checkpoint(tmp_path / "last.pt")
    (tmp_path / "best.pt").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"no checkpoint$"):
        load_checkpoint(tmp_path / "last.pt")


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(small_checkpoint(), path)
    with (
        zipfile.ZipFile(path) as archive,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in archive.infolist():
            content = bytes(2**26) if "/data/" in part.filename else archive.read(part)
            bomb.writestr(part.filename, content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="its parts are compressed"):
        load_checkpoint(tmp_path / "bomb.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 2**10  # KiB


def test_a_file_as_torch_alone_writes_it_is_read(tmp_path):
    saved = small_checkpoint()
    torch.save(
        {field.name: getattr(saved, field.name) for field in dataclasses.fields(saved)}, tmp_path / "last.pt"
    )
    assert same(load_checkpoint(tmp_path / "last.pt"), saved)


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("network", {"a": 1}, r"network\.a"),
        ("network", [1], "network: "),
        ("config", 5, "config: "),
        ("step", "many", "step: "),
        ("moments", {"a": {"step": 3}}, r"moments\.a\.step"),
        ("random", [{"cpu": "x"}], r"random\.0\.cpu"),
        ("progress", None, "progress: "),
    ],
)
def test_a_part_of_another_kind_is_named(tmp_path, part, value, told):
    content = {field.name: getattr(small_checkpoint(), field.name) for field in dataclasses.fields(Checkpoint)}
    torch.save(content | {part: value}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=rf"last\.pt: {told}"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("change", ["lacks one", "has another", "is misshapen"])
def test_tensors_of_another_network_are_refused_in_one_line(tmp_path, monkeypatch, change):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    run, state = make_run(tiny_config())
    saved = checkpoint_of(state, run.config, ONE_PROCESS)
    weights = dict(saved.weights)
    name = next(iter(weights))
    if change == "lacks one":
        del weights[name]
    elif change == "has another":
        weights["one.more"] = torch.zeros(2)
    else:
        weights[name] = weights[name][:-1]
    damaged = dataclasses.replace(saved, network=weights, average=None)
    save_checkpoint(damaged, tmp_path / "best.pt")
    with pytest.raises(
        CheckpointError, match=r"best\.pt: the weights are not those of its config, 1 tensors differ"
    ):
        load(tmp_path / "best.pt", "cpu")
    with pytest.raises(CheckpointError, match="cannot resume: the weights are not those"):
        restore(state, damaged, ONE_PROCESS)


def test_what_a_run_cannot_go_on_from_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    run, state = make_run(tiny_config())
    saved = checkpoint_of(state, run.config, ONE_PROCESS)
    name = next(name for name, parameter in state.network.named_parameters() if parameter.requires_grad)
    for change, told in (
        ({"progress": {"films": 3}}, "progress: films"),
        ({"progress": {"best_error": "?"}}, "progress: best_error"),
        ({"random": [{"cpu": torch.zeros(3)}]}, "random state is none"),
        ({"moments": {name: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(1, 1)}}}, "has another size"),
    ):
        with pytest.raises(CheckpointError, match=told):
            restore(state, dataclasses.replace(saved, **change), ONE_PROCESS)


def test_a_full_disk_keeps_the_older_checkpoint_and_names_the_file(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(small_checkpoint(step=7), path)
    program = (
        "import resource, signal, torch\n"
        "from pathlib import Path\n"
        "from test_checkpoint import small_checkpoint\n"
        "from vertebra_kp.inference.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n"
        f"    save_checkpoint(small_checkpoint(network={{'w': torch.zeros(10_000)}}), Path({str(path)!r}))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    paths = f"{PATHS}{os.pathsep}{Path(__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert "last.pt" in done.stdout, done.stderr
    assert load_checkpoint(path).step == 7
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
