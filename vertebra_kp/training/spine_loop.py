"""Training of a spine network: one loss over several sources; a run that stops goes on where it was."""

import csv
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from vertebra_kp.config.spine import SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.provenance import code_version
from vertebra_kp.data.spine_films import SpineFilm
from vertebra_kp.data.spine_views import SpineTargets, random_view, targets_of
from vertebra_kp.inference.checkpoint import (
    Checkpoint,
    load_checkpoint,
    moments_by_name,
    random_state,
    restore_moments,
    restore_random_state,
    save_checkpoint,
)
from vertebra_kp.models.spine_loss import spine_loss
from vertebra_kp.models.spine_network import USUAL_STEP, SpineNetwork
from vertebra_kp.training.state import load_start, moving_average

log = logging.getLogger(__name__)

LAST, METRICS, BOARD = "last.pt", "metrics.csv", "tensorboard"


def train_spine(
    config: SpineConfig, films: list[tuple[SpineFilm, float]], folder: Path, device: torch.device
) -> Path:
    """Train to the end, from ``last.pt`` of the folder where there is one; returns that file."""
    folder.mkdir(parents=True, exist_ok=True)
    train, last = config.train, folder / LAST
    torch.manual_seed(train.seed)
    network = SpineNetwork(config.network, load_weights=not last.is_file() and train.start_from is None)
    if train.start_from is not None and not last.is_file():
        load_start(network, train.start_from)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.backbone.freeze(train.freeze_stages)
    average = AveragedModel(network, multi_avg_fn=moving_average(train.ema_decay), use_buffers=True)
    backbone = [p for p in network.backbone.parameters() if p.requires_grad]
    others = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": backbone, "base_lr": train.backbone_lr}, {"params": others, "base_lr": train.lr}]
    optimiser = torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay)
    step = 0
    if last.is_file():
        checkpoint = load_checkpoint(last)
        step = checkpoint.step
        network.load_state_dict(checkpoint.network)
        average.module.load_state_dict(checkpoint.weights)
        average.n_averaged.fill_(step)
        restore_moments(optimiser, network, checkpoint.moments)
        restore_random_state(checkpoint.random[0])
        log.info("continues after step %d", step)
    sums: dict[str, float] = {}
    started, since = time.perf_counter(), step
    with SummaryWriter(str(folder / BOARD)) as board:
        for image, targets in _batches(config, films, step):
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * lr_factor(step, train.steps, train.warmup_steps, train.final_lr)
            network.train()
            output = network(image.to(device, memory_format=torch.channels_last))
            terms = spine_loss(output, targets.to(device), network.output_stride, USUAL_STEP)
            terms["total"].backward()
            nn.utils.clip_grad_norm_([*backbone, *others], train.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            average.update_parameters(network)
            step += 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if step % train.save_every_steps == 0 or step == train.steps:
                means = {name: value / (step - since) for name, value in sums.items()}
                seconds = (time.perf_counter() - started) / (step - since)
                if not math.isfinite(means["total"]):
                    raise UserError(f"the loss is not finite at step {step}; lower train.lr ({last} is kept)")
                _note(folder, board, step, means, seconds)
                sums, started, since = {}, time.perf_counter(), step
                save_checkpoint(
                    Checkpoint(
                        config=config.model_dump(mode="json"),
                        step=step,
                        network=network.state_dict(),
                        average=average.module.state_dict(),
                        moments=moments_by_name(optimiser, network),
                        scaler={},
                        random=[random_state()],
                        progress={"version": code_version()},
                    ),
                    last,
                )
    return last


def lr_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """Linear warm-up, then a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batches(
    config: SpineConfig, films: list[tuple[SpineFilm, float]], first: int
) -> Iterator[tuple[Tensor, SpineTargets]]:
    """Of steps ``first`` to the last: a pure function of seed and step; the next is made while one is used."""
    share = np.array([weight for _, weight in films])
    stride = config.network.decoder.output_stride

    def batch(step: int) -> tuple[Tensor, SpineTargets]:
        rng = np.random.default_rng((config.train.seed, step))
        chosen = rng.choice(len(films), config.train.batch_size, p=share / share.sum())
        views = [(random_view(films[i][0], config.views, rng), films[i][0].view) for i in chosen]
        images = torch.from_numpy(np.stack([image for (image, _), _ in views]))[:, None]
        return images, targets_of([(marks, view) for (_, marks), view in views], config.views.size, stride)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, first)
        for step in range(first, config.train.steps):
            ready = ahead.result()
            ahead = pool.submit(batch, step + 1)
            yield ready


def _note(folder: Path, board: SummaryWriter, step: int, means: dict[str, float], seconds: float) -> None:
    path = folder / METRICS
    is_new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["step", *means, "seconds_per_step"])
        writer.writerow([step, *(f"{value:.5f}" for value in means.values()), f"{seconds:.3f}"])
    for name, value in means.items():
        board.add_scalar(f"train/{name}", value, step)
    log.info("step %d: loss %.3f, %.2f s per step", step, means["total"], seconds)
