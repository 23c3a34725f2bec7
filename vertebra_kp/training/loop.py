"""The training loop: plain functions over an explicit state; where a run stands follows from its step."""

import logging
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vertebra_kp.config.schema import Config, PhaseConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_json
from vertebra_kp.core.provenance import code_version
from vertebra_kp.data.datasets import films_of_phase, training_films, validation_films
from vertebra_kp.data.films import Films
from vertebra_kp.data.loader import Batch, FilmDataset, open_batches, shuffled
from vertebra_kp.data.splits import split_hash
from vertebra_kp.evaluation.runner import evaluate_films
from vertebra_kp.evaluation.schema import Metrics
from vertebra_kp.evaluation.summary import PICTURES, first_views, row_of, summary_of, worst_views, write_film_rows
from vertebra_kp.inference.batch import codec_of
from vertebra_kp.inference.checkpoint import Checkpoint, load_checkpoint, put_weights, save_checkpoint
from vertebra_kp.inference.corners import CornerPredictor
from vertebra_kp.models.device import Hardware, hardware, peak_memory_mb
from vertebra_kp.models.losses import KeypointLoss, Targets
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.distributed import Group
from vertebra_kp.training.meter import Meter
from vertebra_kp.training.precision import autocast
from vertebra_kp.training.run_folder import (
    RunFolder,
    RunFolderError,
    check_run_folder,
    lock_run_folder,
    open_run_folder,
)
from vertebra_kp.training.schedule import Phase, Plan, frozen_batch_norms, lr_factor, make_plan
from vertebra_kp.training.state import RunState, change_optimiser, checkpoint_of, restore, start_state
from vertebra_kp.training.trackers import check_trackers
from vertebra_kp.training.tracking import Tracker

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """SIGTERM or Ctrl-C came; last.pt is written, and a resumed run continues from there."""


class TrainingReport(TypedDict):
    """``metrics.json``: the best checkpoint on all validation images, and what the training took."""

    name: str
    best_step: int
    steps: int
    training_seconds: float
    peak_memory_mb: int | None
    hardware: Hardware
    version: str
    films: str
    split_file_sha256: str | None
    validation: Metrics


@dataclass(frozen=True)
class Run:
    """What stays the same while training."""

    config: Config
    folder: RunFolder
    group: Group
    plan: Plan
    dataset: FilmDataset
    validation: Films
    loss: KeypointLoss
    tracker: Tracker | None  # None on all processes but the main one


def train(
    config: Config, path: Path, group: Group, *, resume: bool = False, overwrite: bool = False
) -> TrainingReport | None:
    """Train, select the best checkpoint by landmark error, and return what ``metrics.json`` holds.

    The run folder ``path`` is looked at first and touched last, when films, labels and weights are known to be
    good: a mistake in the config costs no earlier run. The report comes back on the main process, None on others.

    Raises UserError for a config, film, label or folder that cannot be used; Interrupted by a signal, when
    ``last.pt`` is written; NonFiniteLossError for a loss of nan or infinity, ``last.pt`` is the state before.
    """
    data, schema = config.data, config.data.keypoint_schema
    version = code_version()  # now: the files may change while it trains
    on_main(group, lambda: check_trackers(config.train.trackers))
    on_main(group, lambda: check_run_folder(path, config, resume=resume, overwrite=overwrite))
    films, validation = training_films(config), validation_films(config)
    plan = make_plan(config.train, len(films), group.world_size)
    state = start_state(config, schema, group, plan.phases[0], load_weights=not resume)
    state.progress.films = f"{films.identity} {validation.identity}"
    with ExitStack() as held:
        on_main(group, lambda: held.enter_context(lock_run_folder(path)))
        on_main(group, lambda: open_run_folder(path, config, resume=resume, overwrite=overwrite))
        folder = RunFolder(path)
        if resume:
            restore(state, load_checkpoint(folder.last), group)
        tracker = Tracker(folder, config, resume_step=state.step if resume else None) if group.is_main else None
        run = Run(
            config,
            folder,
            group,
            plan,
            FilmDataset(films, schema, data.input_size, augmentation=config.augment, seed=config.train.seed),
            validation,
            KeypointLoss(codec_of(config), config.loss),
            tracker,
        )
        with (
            tracker or nullcontext(),
            signals_caught() as signals,
            Meter(plan, state.step, visible=group.is_main) as meter,
        ):
            while state.step < plan.total_steps and not _out_of_patience(run, state):
                run_phase(run, state, plan.phase_at(state.step), meter, signals)
            return final_report(run, state, version) if group.is_main else None


def on_main(group: Group, work: Callable[[], object]) -> None:
    """What concerns the run folder is done by the main process; where it fails, it fails on all of them."""
    problem = None
    if group.is_main:
        try:
            work()
        except (UserError, OSError) as error:
            problem = str(error)
    if problem := group.broadcast(problem):
        raise RunFolderError(problem)


def run_phase(run: Run, state: RunState, phase: Phase, meter: Meter, signals: list[int]) -> None:
    """Train until the phase ends, patience is out, or a signal comes."""
    train_config, plan = run.config.train, run.plan
    step_network = begin_phase(run, state, phase)
    meter.enter_phase(phase.config.name)
    with closing(batches_from(run, state.step, phase.end, meter)) as steps:
        for batches in steps:
            meter.add(state.step, train_step(run, state, phase, step_network, batches), batches)
            state.step += 1

            epoch, steps_into_epoch = divmod(state.step, plan.steps_per_epoch)
            epoch_done = steps_into_epoch == 0
            evaluate_now = epoch_done and (
                epoch % train_config.evaluate_every == 0 or state.step == plan.total_steps
            )
            log_now = epoch_done or state.step % train_config.log_every_steps == 0
            # Several processes must stop at the same step; asking them every time would hold up a GPU.
            stopping = (log_now or run.group.world_size == 1) and run.group.any(bool(signals))
            save_now = evaluate_now or stopping or state.step % train_config.save_every_steps == 0
            if save_now or log_now:
                means = meter.read(run.group.world_size)  # stops the run before a bad state is saved
                if run.tracker:
                    run.tracker.scalars(state.step, means | _learning_rates(state))
                state.progress.seconds += meter.lap()
            if evaluate_now:
                evaluate_and_select(run, state, phase, means)
            if save_now:
                _save(run, state, run.folder.last)
            state.progress.seconds += meter.lap()
            if stopping:
                origin = f"signal {signals[0]}" if signals else "a signal to another process"
                raise Interrupted(f"{origin} after step {state.step}")
            if _out_of_patience(run, state):
                log.info("stopped: %d evaluations without a better landmark error", train_config.patience)
                return


def train_step(
    run: Run, state: RunState, phase: Phase, step_network: nn.Module, batches: list[Batch]
) -> dict[str, Tensor]:
    """One optimiser step over the batches of this process; returns its losses and the gradient's norm."""
    config, group = run.config.train, run.group
    for parameters in state.optimiser.param_groups:
        parameters["lr"] = parameters["base_lr"] * lr_factor(phase, state.step)
    batches = [batch.to(group.device, memory_format=torch.channels_last) for batch in batches]
    targets = [
        Targets(b.points_xy, b.states, b.presence, {"view": b.view, "slip": b.slips, "image_class": b.image_class})
        for b in batches
    ]
    counts = group.sum(torch.stack([target.counts() for target in targets]).sum(0))
    step_network.train()
    sums: dict[str, Tensor] = {}
    for i, (batch, target) in enumerate(zip(batches, targets, strict=True)):
        last = i == len(batches) - 1
        # Gradients travel between processes once, with the last batch of the step.
        silent = isinstance(step_network, DistributedDataParallel) and not last
        with step_network.no_sync() if silent else nullcontext():  # type: ignore[operator]
            with autocast(config.precision, group.device):
                output = step_network(batch.image)
            terms = run.loss(output.heatmap_logits, output.presence_logits, target, counts, output.class_logits)
            # DistributedDataParallel averages over processes; the counts already are those of all.
            state.scaler.scale(terms["total"] * group.world_size).backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach()
    state.scaler.unscale_(state.optimiser)
    trained = [p for parameters in state.optimiser.param_groups for p in parameters["params"]]
    norm = nn.utils.clip_grad_norm_(trained, config.clip_norm or float("inf"))
    if state.scaler.is_enabled():
        norm = norm.nan_to_num(0.0, 0.0)  # the scaler skips a step that overflows: no fault of the run
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.optimiser.zero_grad(set_to_none=True)  # None, not zero: AdamW moves weights with zero gradients
    if state.average is not None:
        state.average.update_parameters(state.network)
    return {**{name: group.sum(value) for name, value in sums.items()}, "gradient_norm": norm}


def begin_phase(run: Run, state: RunState, phase: Phase) -> nn.Module:
    """Freeze and unfreeze, set up the optimiser, and return the network as steps call it."""
    config, network = run.config, state.network
    frozen = phase.config
    network.freeze(frozen.freeze_stages, frozen.freeze, layers=frozen.freeze_layers)
    change_optimiser(state, config, phase)
    if state.step == 0 and config.train.start_from is None:
        calibrate_frozen_batch_norm(run, network, dataset_of_phase(run, phase.config))
    if run.tracker:
        text, index = phase.config.model_dump_json(indent=1), run.plan.phases.index(phase)
        run.tracker.phase(state.step, phase.config.name, text, index=index)
    step_network: nn.Module = network
    if config.train.compile:
        step_network = cast(nn.Module, torch.compile(network))
    if run.group.world_size > 1:
        # Anew in every phase: a wrapper made before an unfreeze would not synchronise what it unfroze.
        step_network = DistributedDataParallel(step_network)
    return step_network


@torch.no_grad()
def calibrate_frozen_batch_norm(run: Run, network: VertebraNetwork, dataset: FilmDataset) -> None:
    """Statistics of frozen layers with random weights, from a few batches: (0, 1) would be wrong for them.

    Layers that a later phase freezes have been trained by then, or were frozen and calibrated here.
    """
    norms = frozen_batch_norms(network, backbone_is_random=run.config.network.backbone.weights == "none")
    batches, size = run.config.train.batch_norm_calibration, run.config.train.batch_size
    if not norms or not batches:
        return
    # Everything else in eval mode: other statistics must not move, nor random numbers be drawn.
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    # The same films on every process, so that every process gets the same statistics.
    items = shuffled(len(dataset), 0, seed=run.config.train.seed, batch_size=1)[: batches * size]
    with open_batches(dataset, items, batch_size=size, workers=0) as opened:
        for batch in opened:
            network(batch.to(run.group.device).image)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train()


def batches_from(run: Run, step: int, end: int, meter: Meter) -> Generator[list[Batch]]:
    """The batches of steps ``step`` to ``end`` of one phase, as lists of ``accumulate``; workers start once."""
    config = run.config
    dataset = dataset_of_phase(run, run.plan.phase_at(step).config)
    with open_batches(
        dataset,
        _items_from(run, dataset, step, end),
        batch_size=config.train.batch_size,
        workers=config.data.workers,
        pin_memory=run.group.device.type == "cuda",
    ) as opened:
        for _ in range(step, end):
            started = time.perf_counter()
            batches = [next(opened) for _ in range(config.train.accumulate)]
            meter.waited(time.perf_counter() - started)
            yield batches


def _items_from(run: Run, dataset: FilmDataset, step: int, end: int) -> Iterator[tuple[int, int]]:
    """What this process takes in steps ``step`` to ``end``, over as many epochs as they are."""
    config, group, steps_per_epoch = run.config.train, run.group, run.plan.steps_per_epoch
    films_per_step = config.batch_size * config.accumulate
    while step < end:
        epoch, done = divmod(step, steps_per_epoch)
        items = shuffled(
            len(dataset),
            epoch,
            seed=config.seed,
            batch_size=films_per_step,
            rank=group.rank,
            world_size=group.world_size,
            start=done * films_per_step,
            shard_order=dataset.shard_order,
        )
        steps = min(end - step, steps_per_epoch - done)
        yield from items[: steps * films_per_step]
        step += steps


def dataset_of_phase(run: Run, phase: PhaseConfig) -> FilmDataset:
    return replace(
        run.dataset,
        films=films_of_phase(run.config, phase, run.dataset.films),
        augmentation=run.config.augment.with_geometry(phase.geometry),
    )


def evaluate_and_select(run: Run, state: RunState, phase: Phase, means: dict[str, float]) -> None:
    """Measure on the validation films, show them, and keep the weights if none had a smaller error."""
    config, progress = run.config, state.progress
    error = None
    if run.group.is_main:
        predictor = CornerPredictor(state.evaluated_network, config, state.step)
        evaluated = evaluate_films(predictor, run.validation, limit=config.train.evaluate_films, shown=PICTURES)
        summary = summary_of(evaluated, config.data.keypoint_schema)
        error = summary["mre_px"]
        if error is None:
            raise UserError(
                f"none of the {len(evaluated)} films validated has a labelled corner: nothing can select the best "
                "checkpoint; raise train.evaluate_films or name other data.validation_splits"
            )
        epoch = state.step // run.plan.steps_per_epoch
        row = {"epoch": epoch, "phase": phase.config.name, "train_loss": means["train/total"], **row_of(summary)}
        assert run.tracker is not None
        run.tracker.evaluation(
            state.step,
            row,
            summary,
            first_views(evaluated, predictor, run.validation),
            worst_views(evaluated),
            config.data.keypoint_schema,
        )
        log.info("epoch %d: mean radial error %.2f px on %d films", epoch, error, len(evaluated))
    error = run.group.broadcast(error)
    if error is not None and error < progress.best_error:
        progress.best_error, progress.best_step, progress.evaluations_since_best = error, state.step, 0
        _save(run, state, run.folder.best)
    else:
        progress.evaluations_since_best += 1


def final_report(run: Run, state: RunState, version: str) -> TrainingReport:
    """The best checkpoint on all validation films, with intervals, kept in ``metrics.json`` and ``films.csv``."""
    config, schema = run.config, run.config.data.keypoint_schema
    best: Checkpoint = load_checkpoint(run.folder.best)
    put_weights(state.network, best.weights, run.folder.best)
    evaluated = evaluate_films(CornerPredictor(state.network, config, best.step), run.validation)
    summary = summary_of(evaluated, schema, bootstrap=1000)
    report: TrainingReport = {
        "name": config.name,
        "best_step": best.step,
        "steps": state.step,
        "training_seconds": round(state.progress.seconds, 1),
        "peak_memory_mb": peak_memory_mb(run.group.device),
        "hardware": hardware(run.group.device),
        "version": version,
        "films": state.progress.films,
        "split_file_sha256": split_hash(config.data.split_file),
        "validation": summary,
    }
    write_film_rows(evaluated, run.folder.films)
    write_json(report, run.folder.metrics)
    assert run.tracker is not None
    numbers = {f"hparam/{k}": v for k, v in row_of(summary).items() if v is not None}
    run.tracker.finish(numbers)
    return report


def _save(run: Run, state: RunState, path: Path) -> None:
    checkpoint = checkpoint_of(state, run.config, run.group)
    if checkpoint is not None:
        save_checkpoint(checkpoint, path)


def _out_of_patience(run: Run, state: RunState) -> bool:
    patience = run.config.train.patience
    return patience is not None and state.progress.evaluations_since_best >= patience


def _learning_rates(state: RunState) -> dict[str, float]:
    groups = state.optimiser.param_groups
    return {f"lr/{group['name']}": group["lr"] for group in groups if not group["name"].endswith("undecayed")}


@contextmanager
def signals_caught() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT are added to; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def remember(number: int, _frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    old = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
