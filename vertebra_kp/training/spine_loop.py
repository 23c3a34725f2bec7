"""Training on several sources, of spine and level networks: a run that stops goes on where it was."""

import csv
import hashlib
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_text
from vertebra_kp.core.provenance import code_version
from vertebra_kp.data.spine_films import SpineFilm
from vertebra_kp.data.spine_views import SpineTargets
from vertebra_kp.inference.checkpoint import (
    Checkpoint,
    load_checkpoint,
    moments_by_name,
    put_weights,
    random_state,
    restore_moments,
    restore_random_state,
    save_checkpoint,
)
from vertebra_kp.models.level_network import LevelNetwork, LevelTargets
from vertebra_kp.models.spine_network import SpineNetwork
from vertebra_kp.training.batch_norm import check_batch_norms
from vertebra_kp.training.loop import Interrupted, signals_caught
from vertebra_kp.training.run_folder import RunFolder, RunFolderError, lock_run_folder
from vertebra_kp.training.start import begins_anew, load_start
from vertebra_kp.training.state import moving_average
from vertebra_kp.training.tasks import Task, task_of
from vertebra_kp.training.trackers import Backend, Identity, check_trackers, open_trackers

log = logging.getLogger(__name__)

LAST, METRICS = "last.pt", "metrics.csv"
Films = list[tuple[SpineFilm, float]]  # each with how often it is shown against the others


def check_spine_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises RunFolderError, and touches nothing, where the folder cannot be used as asked."""
    exists = (folder / LAST).is_file()
    if resume and not exists:
        raise RunFolderError(f"nothing to resume: {folder / LAST} does not exist; start the run without resuming")
    if exists and not (resume or overwrite):
        raise RunFolderError(f"{folder} already holds a run; resume it, overwrite it, or choose another folder")


def train_spine(
    config: SpineConfig | LevelConfig,
    films: Films,
    folder: Path,
    device: torch.device,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train to the end, or on from ``last.pt``; returns that file.

    An older run is removed last, when images and weights are known to be good. Raises RunFolderError for a folder
    that cannot be used, UserError for weights that do not fit and a loss that is not finite; Interrupted by a
    signal, when ``last.pt`` is written.
    """
    check_spine_folder(folder, resume=resume, overwrite=overwrite)
    check_trackers(config.train.trackers)
    torch.manual_seed(config.train.seed)
    task = task_of(config)
    state = _start(task, device, load_weights=not resume)
    with lock_run_folder(folder):
        check_spine_folder(folder, resume=resume, overwrite=overwrite)  # another process may have ended meanwhile
        if resume:
            _restore(state, load_checkpoint(folder / LAST), config, films)
            _cut_figures(folder / METRICS, state.step)
        else:
            _clear(folder)
        run = Identity.of(config, RunFolder(folder), state.step if resume else None)
        with open_trackers(config.train.trackers, run) as trackers, signals_caught() as signals:
            _run(state, task, films, folder, trackers, signals)
    return folder / LAST


@dataclass
class _State:
    network: SpineNetwork | LevelNetwork
    average: AveragedModel
    optimiser: torch.optim.AdamW
    step: int = 0

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def _start(task: Task, device: torch.device, *, load_weights: bool) -> _State:
    train = task.config.train
    network = task.network(load_weights=load_weights and begins_anew(train, "backbone"))
    if load_weights and train.start_from is not None:
        load_start(network, train)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.backbone.freeze(train.freeze_stages)
    check_batch_norms(network, train.batch_size, task.size)
    average = AveragedModel(network, multi_avg_fn=moving_average(train.ema_decay), use_buffers=True)
    backbone = [p for p in network.backbone.parameters() if p.requires_grad]
    others = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": backbone, "base_lr": train.backbone_lr}, {"params": others, "base_lr": train.lr}]
    return _State(network, average, torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay))


def _restore(state: _State, checkpoint: Checkpoint, config: SpineConfig | LevelConfig, films: Films) -> None:
    """Raises RunFolderError for a checkpoint of another config or of other images."""
    if "sources" not in checkpoint.config or _what_decides(checkpoint.config) != _what_decides(
        config.model_dump(mode="json")
    ):
        raise RunFolderError("cannot resume: the config differs from the run's own; give the same, or start anew")
    if checkpoint.progress.get("films") != identity_of(films):
        raise RunFolderError("cannot resume: the images or their labels differ from those that the run began with")
    state.step = checkpoint.step
    put_weights(state.network, checkpoint.network, "cannot resume")
    put_weights(state.average.module, checkpoint.weights, "cannot resume")
    state.average.n_averaged.fill_(checkpoint.step)
    restore_moments(state.optimiser, state.network, checkpoint.moments)
    for random in checkpoint.random[:1]:
        restore_random_state(random)
    log.info("continues after step %d", state.step)


MAY_CHANGE = ("save_every_steps", "start_from", "start_parts", "trackers")  # to change where a run is resumed


def _what_decides(config: dict[str, Any]) -> dict[str, Any]:
    """The config without places on this machine: with equal images, the same weights come of it."""
    train = {key: value for key, value in config["train"].items() if key not in MAY_CHANGE}
    return {**config, "sources": [source | {"root": None} for source in config["sources"]], "train": train}


def identity_of(films: Films) -> str:
    """Which images these are, with which labels: the same text, the same images."""
    digest = hashlib.sha256()
    for film, share in films:
        marks = np.concatenate([film.vertebrae.centres.ravel(), film.vertebrae.corners.ravel()])
        digest.update(f"{film.id}{share:.6g}".encode() + np.round(marks, 1).astype("<f4").tobytes())
        digest.update(film.vertebrae.levels.astype("<i8").tobytes())
    return f"{len(films)}:{digest.hexdigest()[:16]}"


def _clear(folder: Path) -> None:
    """Remove what an older run wrote, and nothing else."""
    logs = RunFolder(folder)
    for path in (folder / LAST, folder / METRICS, logs.tracker_ids):
        path.unlink(missing_ok=True)
    for path in (logs.tensorboard, logs.mlflow, logs.wandb):
        shutil.rmtree(path, ignore_errors=True)


def _cut_figures(path: Path, last_step: int) -> None:
    """Take off the rows behind the checkpoint, and half a row: steps that a kill undid are made again."""
    if path.is_file():
        head, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        steps = [row.partition(",")[0] for row in rows]
        kept = [
            row
            for row, step in zip(rows, steps, strict=True)
            if row.endswith("\n") and step.isdecimal() and int(step) <= last_step
        ]
        write_text("".join([head, *kept]), path)


def _run(
    state: _State, task: Task, films: Films, folder: Path, trackers: Sequence[Backend], signals: list[int]
) -> None:
    train, device = task.config.train, next(state.network.parameters()).device
    sums: dict[str, float] = {}
    started, since = time.perf_counter(), state.step
    for image, targets in _batches(task, films, state.step):
        for name, value in _step(state, task, image.to(device), targets.to(device)).items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if state.step % train.save_every_steps == 0 or state.step == train.steps or signals:
            means = {name: value / (state.step - since) for name, value in sums.items()}
            if not math.isfinite(means["total"]):
                raise UserError(f"the loss is not finite at step {state.step}; lower train.lr (last.pt is kept)")
            _note(folder, trackers, state.step, means, (time.perf_counter() - started) / (state.step - since))
            _save(state, task.config, films, folder / LAST)
            sums, started, since = {}, time.perf_counter(), state.step
        if signals:
            raise Interrupted(f"signal {signals[0]} after step {state.step}")
    for tracker in trackers:
        tracker.finish(state.step, {})


def _step(state: _State, task: Task, image: Tensor, targets: SpineTargets | LevelTargets) -> dict[str, Tensor]:
    """One step of the optimiser; returns its losses."""
    train = task.config.train
    for group in state.optimiser.param_groups:
        group["lr"] = group["base_lr"] * lr_factor(state.step, train.steps, train.warmup_steps, train.final_lr)
    state.network.train()
    terms = task.loss(state.network, image.contiguous(memory_format=torch.channels_last), targets)
    terms["total"].backward()
    nn.utils.clip_grad_norm_(state.trained, train.clip_norm)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    state.average.update_parameters(state.network)
    state.step += 1
    return terms


def _save(state: _State, config: SpineConfig | LevelConfig, films: Films, path: Path) -> None:
    checkpoint = Checkpoint(
        config=config.model_dump(mode="json"),
        step=state.step,
        network=state.network.state_dict(),
        average=state.average.module.state_dict(),
        moments=moments_by_name(state.optimiser, state.network),
        scaler={},
        random=[random_state()],
        progress={"version": code_version(), "films": identity_of(films)},
    )
    save_checkpoint(checkpoint, path)


def lr_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """Linear warm-up, then a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batches(task: Task, films: Films, first: int) -> Iterator[tuple[Tensor, SpineTargets | LevelTargets]]:
    """Of steps ``first`` to the last: a pure function of seed and step; the next is made while one is used."""
    train = task.config.train
    share = np.array([weight for _, weight in films])

    def batch(step: int) -> tuple[Tensor, SpineTargets | LevelTargets]:
        rng = np.random.default_rng((train.seed, step))
        chosen = rng.choice(len(films), train.batch_size, p=share / share.sum())
        return task.batch([films[i][0] for i in chosen], rng)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, first)
        for step in range(first, train.steps):
            ready = ahead.result()
            ahead = pool.submit(batch, step + 1)
            yield ready


def _note(folder: Path, trackers: Sequence[Backend], step: int, means: dict[str, float], seconds: float) -> None:
    path = folder / METRICS
    is_new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["step", *means, "seconds_per_step"])
        writer.writerow([step, *(f"{value:.5f}" for value in means.values()), f"{seconds:.3f}"])
    for tracker in trackers:
        tracker.scalars(step, {f"train/{name}": value for name, value in means.items()})
    log.info("step %d: loss %.3f, %.2f s per step", step, means["total"], seconds)
