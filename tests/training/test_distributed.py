"""Two processes under torchrun train as one does; this file is also the program that they run."""

import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_job import FROZEN, ONE_PROCESS, PATHS, UNFROZEN, make_run, thin_efficientnet, tiny_config, train_all
from torch import Tensor, nn

from vertebra_kp.config.schema import Config
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.models import library
from vertebra_kp.training import loop as engine
from vertebra_kp.training.distributed import Group, process_group

PROCESSES = 2
FILMS_PER_STEP = 4
LR = 1e-3
# A constant added to a whole heatmap, or to all the scores that a query gives its keys, leaves the softmax as
# it is. So these gradients are 0 but for rounding, and AdamW makes steps of full size out of rounding.
WITHOUT_EFFECT = ("heatmap_head.conv.bias", "attention.qkv.bias")


def job(processes: int) -> Config:
    """Three steps frozen, then six unfrozen, on the same films in the same order for any number of processes."""
    phases = (FROZEN | {"lr": LR}, UNFROZEN | {"lr": LR, "epochs": 2})
    return tiny_config(
        films=3 * FILMS_PER_STEP,
        dropout=0.0,
        stochastic_depth=0.0,
        other_view=0.4,
        classification={"hidden": 0, "dropout": 0.0},  # no BatchNorm1d: its statistics are those of a rank
        phases=phases,
        batch_size=FILMS_PER_STEP // processes,
        batch_norm_calibration=0,
    )


def stay_in_eval_mode(norm: nn.BatchNorm2d, mode: bool = True) -> nn.BatchNorm2d:
    """In place of ``BatchNorm2d.train``: batch statistics are all that halves of a batch see otherwise."""
    return nn.Module.train(norm, False)


def trained(group: Group, processes: int) -> dict[str, dict[str, Tensor]]:
    run, state = make_run(job(processes), group)
    losses = train_all(run, state)
    logged = {f"{step} {name}": value for step, row in enumerate(losses) for name, value in row.items()}
    return {"weights": dict(state.network.named_parameters()), "losses": logged}


def stop_and_resume(group: Group, out: Path) -> None:
    """Two runs of the same job: ``undisturbed``, and ``resumed`` after a signal to the second process only."""
    config = tiny_config(films=4 * PROCESSES, log_every_steps=1)  # two steps frozen, two unfrozen
    engine.train(config, out / "undisturbed", group)
    real = engine.train_step

    def train_step(run, state, *arguments):
        if group.rank == 1 and state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run, state, *arguments)

    engine.train_step = train_step
    try:
        engine.train(config, out / "resumed", group)
    except engine.Interrupted as interrupted:
        (out / f"interrupted-{group.rank}").write_text(str(interrupted))
    engine.train_step = real
    engine.train(config, out / "resumed", group, resume=True)


def worker(out: Path) -> None:
    library.efficientnet_v2_s = thin_efficientnet
    torch.set_num_threads(1)
    live_train = nn.BatchNorm2d.train
    with process_group("cpu") as group:
        results = {"live": trained(group, PROCESSES)}
        nn.BatchNorm2d.train = stay_in_eval_mode
        results["still"] = trained(group, PROCESSES)
        nn.BatchNorm2d.train = live_train
        first = torch.tensor([1.0 + group.rank])
        results["group"] = {
            "sum": group.sum(first),
            "own": first,
            "any": [group.any(group.rank == 1), group.any(False)],
            "gather": group.gather(f"rank {group.rank}"),
            "broadcast": group.broadcast(f"rank {group.rank}"),
        }
        stop_and_resume(group, out)
        torch.save(results, out / f"{group.rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes left."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={PROCESSES}", __file__, str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": PATHS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def ranks(folder) -> list[dict]:
    """What each process ended with."""
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("norms", ["live", "still"])
def test_weights_are_bit_equal_on_every_rank_after_an_unfreeze(ranks, norms):
    first, second = (rank[norms]["weights"] for rank in ranks)
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


def test_two_processes_equal_one_with_the_same_global_batch(ranks, monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    monkeypatch.setattr(nn.BatchNorm2d, "train", stay_in_eval_mode)
    _, untrained = make_run(job(1))
    start = dict(untrained.network.named_parameters())
    one, two = trained(ONE_PROCESS, 1), ranks[0]["still"]
    compared = [name for name in one["weights"] if not name.endswith(WITHOUT_EFFECT)]
    distance = {n: float((one["weights"][n] - two["weights"][n]).detach().abs().max()) for n in compared}
    assert max(distance.values()) < 1e-5, sorted(distance.items(), key=lambda item: -item[1])[:5]
    # Nine steps moved most weights a hundred times as far: without its gradient a weight would be far off.
    moved = [float((one["weights"][name] - start[name]).detach().abs().max()) for name in compared]
    assert statistics.median(moved) > 1e-3
    assert len(one["losses"]) == 9 * 6
    for name, value in one["losses"].items():
        # The norm, because AdamW hardly feels a gradient that is twice too large.
        rtol = 1e-4 if name.endswith("gradient_norm") else 1e-5
        torch.testing.assert_close(two["losses"][name], value, rtol=rtol, atol=1e-6)


def test_a_signal_to_one_process_stops_both_and_they_resume_as_if_never_stopped(folder):
    for rank in range(PROCESSES):
        assert "after step 3" in (folder / f"interrupted-{rank}").read_text()
    resumed, undisturbed = (
        load_checkpoint(folder / name / "checkpoints" / "last.pt") for name in ("resumed", "undisturbed")
    )
    assert resumed.step == undisturbed.step == 4
    for part in ("network", "average", "moments", "random"):
        torch.testing.assert_close(getattr(resumed, part), getattr(undisturbed, part), rtol=0, atol=0)


def test_the_group_sums_gathers_and_broadcasts(ranks):
    for rank, results in enumerate(ranks):
        found = results["group"]
        assert float(found["sum"]) == 3
        assert float(found["own"]) == 1 + rank  # the sum is a new tensor
        assert found["any"] == [True, False]
        assert found["gather"] == ["rank 0", "rank 1"]
        assert found["broadcast"] == "rank 0"


def test_one_process_is_a_group_of_one():
    value = torch.tensor([2.5])
    assert ONE_PROCESS.is_main
    assert torch.equal(ONE_PROCESS.sum(value), value)
    assert (ONE_PROCESS.any(True), ONE_PROCESS.any(False)) == (True, False)
    assert ONE_PROCESS.gather("x") == ["x"]
    assert ONE_PROCESS.broadcast("x") == "x"


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
