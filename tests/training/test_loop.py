"""The loop: learning, selection, early stop, accumulation, and what it does when something breaks."""

import dataclasses

import pytest
import torch
from tiny_job import FROZEN, ONE_PROCESS, UNFROZEN, make_run, thin_efficientnet, tiny_config, train_all
from torch import nn

from vertebra_kp.config.schema import Config
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.models import library
from vertebra_kp.training import loop as engine
from vertebra_kp.training.distributed import Group
from vertebra_kp.training.loop import Interrupted, batches_from, begin_phase, train
from vertebra_kp.training.meter import Meter, NonFiniteLossError
from vertebra_kp.training.precision import autocast_dtype
from vertebra_kp.training.run_folder import RunFolder
from vertebra_kp.training.state import moving_average

CPU = torch.device("cpu")


class SilentTracker:
    """In place of TensorBoard; keeps what it is told."""

    def __init__(self, *_, **__) -> None:
        self.rows, self.phases = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None: ...

    def scalars(self, *_) -> None: ...

    def phase(self, step, name, *_, **__) -> None:
        self.phases.append((step, name))

    def evaluation(self, step, row, *_) -> None:
        self.rows.append((step, row["mre_px"]))

    def finish(self, *_) -> None: ...


@pytest.fixture(autouse=True)
def tracker(monkeypatch) -> SilentTracker:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    silent = SilentTracker()
    monkeypatch.setattr(engine, "Tracker", lambda *_, **__: silent)
    yield silent
    torch.set_num_threads(threads)


def start(path, config: Config, group: Group = ONE_PROCESS) -> dict:
    return train(config, path, group)


def errors_are(monkeypatch, errors: list[float]) -> None:
    """Evaluations return these errors, one after the other; the last again for the report."""
    queue = [*errors, errors[-1]]

    def summary_of(*_, **__):
        return {"mre_px": queue.pop(0) if len(queue) > 1 else queue[0]}

    monkeypatch.setattr(engine, "evaluate_films", lambda *_, **__: [])
    monkeypatch.setattr(engine, "write_film_rows", lambda *_: None)
    monkeypatch.setattr(engine, "first_views", lambda *_, **__: [])
    monkeypatch.setattr(engine, "worst_views", lambda *_, **__: [])
    monkeypatch.setattr(engine, "summary_of", summary_of)


# --- learning -------------------------------------------------------------------------------------------


def overfit_losses(epochs: int) -> list[float]:
    """Heatmap losses of one batch of two films, seen again and again unchanged."""
    phase = {"name": "all", "epochs": epochs, "lr": 2e-3, "final_lr": 1.0}
    config = tiny_config(films=2, fresh=False, dropout=0.0, stochastic_depth=0.0, phases=(phase,), ema_decay=0.0)
    still = {"rotate_deg": 0, "scale": 0, "shift": 0, "gamma": 0, "contrast": 0, "brightness": 0}
    augment = config.augment.model_copy(update={**still, "blur_px": 0, "noise": 0})
    run, state = make_run(config.model_copy(update={"augment": augment}))
    return [float(losses["heatmap"]) for losses in train_all(run, state)]


def test_classes_are_learned_reported_and_reach_their_head_at_weight_zero(tmp_path, tracker):
    config = tiny_config(films=4, other_view=0.5, classification={}, phases=(UNFROZEN,))
    report = start(tmp_path, config)["validation"]
    assert report["view"]["counts"] == {"AP": 1, "LA": 2}  # three films
    assert report["slip"]["labelled"] == 2 * 5
    assert report["classification_reference"]["top1"] == 0.953
    weightless = config.model_copy(update={"loss": config.loss.model_copy(update={"classification_weight": 0.0})})
    run, state = make_run(weightless)
    seen = []
    for parameter in state.network.classification_head.parameters():
        parameter.register_hook(lambda gradient: seen.append(float(gradient.abs().max())))
    train_all(run, state)
    parameters = len(list(state.network.classification_head.parameters()))
    assert len(seen) == 2 * parameters  # two steps


def test_two_films_seen_again_and_again_are_learned():
    losses = overfit_losses(epochs=40)
    # log(32 x 32 cells) less the entropy of a Gaussian of sigma 1.5, log(2 pi e 1.5^2) = 3.65, is what a flat
    # map costs: 3.3. A map that gives every corner its neighbourhood costs less than half of it.
    assert 2.5 < losses[0] < 6
    assert max(losses[-3:]) < losses[0] / 2


@pytest.mark.slow  # 150 steps of the whole network, about a minute
def test_the_whole_network_learns_two_films_to_a_tenth_of_the_loss(monkeypatch):
    monkeypatch.undo()
    losses = overfit_losses(epochs=150)
    assert max(losses[-3:]) < losses[0] / 10


def test_phases_come_in_order_and_the_report_tells_the_best_step(tmp_path, tracker, monkeypatch):
    errors_are(monkeypatch, [5.0, 4.0])
    report = start(tmp_path, tiny_config())
    assert tracker.phases == [(0, "frozen"), (4, "unfrozen")]
    assert tracker.rows == [(4, 5.0), (8, 4.0)]
    assert (report["steps"], report["best_step"]) == (8, 8)
    assert RunFolder(tmp_path).metrics.is_file()


def test_a_phase_of_phantoms_sees_new_films_in_every_epoch_and_the_next_one_those_of_the_data():
    phases = ({"name": "drawn", "films": "phantom", "epochs": 2}, {"name": "labelled", "epochs": 2})
    run, _ = make_run(tiny_config(films=8, fresh=False, phases=phases))
    seen = {}
    with Meter(run.plan, 0, visible=False) as meter:
        for phase in run.plan.phases:
            steps = batches_from(run, phase.start, phase.end, meter)
            seen[phase.config.name] = [film.id for step in steps for batch in step for film in batch.labels]
    assert len(seen["drawn"]) == len(set(seen["drawn"])) == 16
    assert sorted(seen["labelled"]) == sorted([run.dataset.films.at(0, i).id for i in range(8)] * 2)


def test_a_run_starts_from_the_weights_that_another_one_was_evaluated_with(tmp_path):
    start(tmp_path / "first", tiny_config())
    first = load_checkpoint(RunFolder(tmp_path / "first").best)
    config = tiny_config(seed=5, start_from=RunFolder(tmp_path / "first").best)
    run, state = make_run(config)
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    assert before.keys() == first.average.keys() != {}
    assert all(torch.equal(before[name], first.average[name]) for name in before)
    # Statistics of trained layers stay as they were learnt, frozen or not.
    begin_phase(run, state, run.plan.phases[0])
    assert all(torch.equal(before[name], value) for name, value in state.network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        ({"anatomy": "ap_whole_spine"}, "heatmap_head.conv.bias"),
        ({"network": {"neck": {"depth": 1, "width": 64}}}, "neck.encoders.F4.layers.1"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, change, tensor):
    start(tmp_path / "first", tiny_config())
    config = tiny_config(start_from=RunFolder(tmp_path / "first").best).model_dump()
    config["data"]["anatomy"] = change.get("anatomy", "la_lumbar")
    config["network"]["neck"] |= change.get("network", {}).get("neck", {})
    with pytest.raises(UserError, match=rf"train.start_from: .*best.pt is of another network, .* {tensor}"):
        make_run(Config.model_validate(config))


# Without BatchNorm in the head: its statistics are those of a batch, whatever the step makes of it.
@pytest.mark.parametrize(
    ("classification", "terms"), [(None, set()), ({"hidden": 0, "dropout": 0.0}, {"view", "slip"})]
)
def test_accumulating_two_batches_of_two_equals_one_of_four(monkeypatch, classification, terms):
    # BatchNorm stays in eval mode: batch statistics are the one thing that a part of a batch sees otherwise.
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda norm, mode=True: nn.Module.train(norm, False))
    phases = (FROZEN | {"epochs": 1}, UNFROZEN | {"epochs": 2})

    def weights_and_losses(**batch):
        config = tiny_config(
            films=9,
            dropout=0.0,
            stochastic_depth=0.0,
            other_view=0.4 if classification else 0.0,
            classification=classification,
            phases=phases,
            batch_norm_calibration=0,
            **batch,
        )
        run, state = make_run(config)
        return dict(state.network.named_parameters()), train_all(run, state)

    whole, losses = weights_and_losses(batch_size=4)
    parts, losses_of_parts = weights_and_losses(batch_size=2, accumulate=2)
    assert len(losses) == len(losses_of_parts) == 6
    for mine, theirs in zip(losses_of_parts, losses, strict=True):
        assert mine.keys() == theirs.keys() == {"heatmap", "presence", "total", "gradient_norm"} | terms
        for name, value in theirs.items():
            rtol = 1e-4 if name == "gradient_norm" else 1e-5
            torch.testing.assert_close(mine[name], value, rtol=rtol, atol=1e-6)
    # Biases whose gradient is 0 but for rounding: a softmax does not feel a constant; AdamW blows rounding up.
    without_effect = ("heatmap_head.conv.bias", "attention.qkv.bias")
    for name, weight in whole.items():
        if not name.endswith(without_effect):
            assert float((weight - parts[name]).abs().max()) < 1e-5, name


# --- selection ------------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_that_of_the_smallest_error_and_a_tie_keeps_the_first(tmp_path, monkeypatch):
    errors_are(monkeypatch, [9.0, 7.0, 8.0, 7.0])
    config = tiny_config(films=4, phases=(UNFROZEN | {"epochs": 4},))
    report = start(tmp_path, config)
    assert report["best_step"] == load_checkpoint(RunFolder(tmp_path).best).step == 4
    assert load_checkpoint(RunFolder(tmp_path).last).step == 8


def test_patience_stops_after_so_many_evaluations_without_a_better_error(tmp_path, tracker, monkeypatch):
    errors_are(monkeypatch, [9.0, 7.0, 7.5, 8.0, 1.0, 1.0])
    report = start(tmp_path, tiny_config(films=4, phases=(UNFROZEN | {"epochs": 6},), patience=2))
    assert [error for _, error in tracker.rows] == [9.0, 7.0, 7.5, 8.0]
    assert (report["steps"], report["best_step"]) == (8, 4)


def test_patience_also_ends_the_phases_that_would_follow(tmp_path, tracker, monkeypatch):
    errors_are(monkeypatch, [5.0, 6.0, 1.0])
    start(tmp_path, tiny_config(films=4, phases=(FROZEN | {"epochs": 2}, UNFROZEN), patience=1))
    assert [name for _, name in tracker.phases] == ["frozen"]


def test_evaluations_come_every_so_many_epochs_and_at_the_end(tmp_path, tracker, monkeypatch):
    errors_are(monkeypatch, [5.0, 4.0, 3.0])
    start(tmp_path, tiny_config(films=2, phases=(UNFROZEN | {"epochs": 5},), evaluate_every=2))
    assert [step for step, _ in tracker.rows] == [2, 4, 5]


# --- what goes wrong ------------------------------------------------------------------------------------


def films_of_step(monkeypatch, step: int, spoil) -> list[str]:
    """Call ``spoil(state)`` before this step (from 0); the list is filled with the films of the step."""
    real, ids = engine.train_step, []

    def train_step(run, state, phase, step_network, batches):
        if state.step == step:
            ids.extend(labels.id for batch in batches for labels in batch.labels)
            spoil(state)
        return real(run, state, phase, step_network, batches)

    monkeypatch.setattr(engine, "train_step", train_step)
    return ids


def nan_weight(state) -> None:
    state.network.heatmap_head.conv.weight.data[0, 0] = float("nan")


def nan_gradient(state) -> None:
    state.network.heatmap_head.conv.weight.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize(("spoil", "what"), [(nan_weight, "loss"), (nan_gradient, "gradient")])
@pytest.mark.parametrize("log_every_steps", [1, 10])
def test_a_number_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint_before(
    tmp_path, monkeypatch, spoil, what, log_every_steps
):
    ids = films_of_step(monkeypatch, 4, spoil)
    config = tiny_config(
        films=12, phases=(UNFROZEN,), save_every_steps=3, log_every_steps=log_every_steps, evaluate_every=9
    )
    with pytest.raises(NonFiniteLossError, match=f"the {what} is nan at step 4") as caught:
        start(tmp_path, config)
    assert len(ids) == 2
    assert all(name in str(caught.value) for name in ids)
    last = load_checkpoint(RunFolder(tmp_path).last)
    assert last.step == 3
    assert all(value.isfinite().all() for value in last.network.values())
    assert not RunFolder(tmp_path).best.exists()


def test_the_step_before_a_save_is_checked_too(tmp_path, monkeypatch):
    films_of_step(monkeypatch, 2, nan_gradient)
    with pytest.raises(NonFiniteLossError):
        start(tmp_path, tiny_config(films=12, phases=(UNFROZEN,), save_every_steps=3, log_every_steps=100))
    assert not RunFolder(tmp_path).last.exists()


class SignalledElsewhere(Group):
    """A group in which another process got a signal."""

    def any(self, flag: bool) -> bool:
        return True


def test_a_signal_to_another_process_stops_this_one_too(tmp_path):
    with pytest.raises(Interrupted, match="another process after step 1"):
        start(tmp_path, tiny_config(), SignalledElsewhere(**dataclasses.asdict(ONE_PROCESS)))
    assert load_checkpoint(RunFolder(tmp_path).last).step == 1


# --- averages and precision -----------------------------------------------------------------------------


def test_the_moving_average_starts_as_a_plain_mean_and_becomes_exponential():
    update, average = moving_average(0.75), torch.tensor([8.0])  # the first value is copied
    found = []
    for updates, value in enumerate((4.0, 6.0, 10.0, 2.0, 2.0), start=1):
        update([average], [torch.tensor([value])], torch.tensor(updates))
        found.append(float(average))
    # (8 + 4) / 2, (8 + 4 + 6) / 3, (8 + 4 + 6 + 10) / 4, then a quarter of the way each time.
    assert found == pytest.approx([6, 6, 7, 7 - 5 / 4, 5.75 - 3.75 / 4])


def test_the_moving_average_takes_counters_as_they_are():
    counter = torch.tensor(3)
    moving_average(0.9)([counter], [torch.tensor(8)], torch.tensor(2))
    assert counter.dtype == torch.int64
    assert int(counter) == 8


def test_the_average_of_a_run_follows_weights_and_batch_norm_statistics():
    run, state = make_run(tiny_config(films=4, phases=(UNFROZEN,), ema_decay=0.5))
    seen = []
    real = state.average.update_parameters
    state.average.update_parameters = lambda network: (
        real(network),
        seen.append({name: value.clone().double() for name, value in network.state_dict().items()}),
    )
    train_all(run, state)
    assert len(seen) == 2
    for name in ("heatmap_head.conv.weight", "backbone.blocks.0.1.running_mean"):
        mean = (seen[0][name] + seen[1][name]) / 2
        torch.testing.assert_close(state.average.module.state_dict()[name].double(), mean, rtol=1e-6, atol=1e-7)


def test_fp16_is_refused_on_a_cpu_with_the_alternatives():
    with pytest.raises(ValueError, match="fp16 needs a GPU, this is a CPU; take auto, bf16 or off"):
        autocast_dtype("fp16", CPU)


def test_precision_off_is_float32_and_bf16_is_taken_at_its_word():
    assert autocast_dtype("off", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    assert autocast_dtype("auto", CPU) in (None, torch.bfloat16)


# --- what must not be lost ------------------------------------------------------------------------------


def test_a_mistake_in_the_input_costs_no_earlier_run(tmp_path):
    start(tmp_path / "run", tiny_config(films=4, phases=(UNFROZEN,)))
    before = (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes()
    csv_folder = tmp_path / "films"
    csv_folder.mkdir()
    wrong = tiny_config(films=4, phases=(UNFROZEN,)).model_dump()
    wrong["data"] |= {"source": "csv", "root": csv_folder, "split_file": "aasce"}
    wrong["data"] |= {"train_splits": ["fold1"], "validation_splits": ["fold0"]}
    with pytest.raises(UserError):
        train(Config.model_validate(wrong), tmp_path / "run", ONE_PROCESS, overwrite=True)
    assert (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes() == before


def test_a_run_is_not_resumed_on_other_films(tmp_path, monkeypatch):
    config = tiny_config(films=4, phases=(UNFROZEN,))
    start(tmp_path, config)
    monkeypatch.setattr(
        engine,
        "training_films",
        lambda config: PhantomFilms(
            config.data.keypoint_schema, "standard", 99, 4, config.data.input_size, fresh=True
        ),
    )
    with pytest.raises(UserError, match="other films"):
        train(config, tmp_path, ONE_PROCESS, resume=True)
