"""Phases, parameter groups, learning rates: pure functions of the config and the step."""

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypedDict

from torch import nn

from vertebra_kp.config.schema import PhaseConfig, TrainConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.batch_norm import check_batch_norms

# Of more than one dimension, but no weights of a layer: positions, embeddings, ConvNeXt's scales.
UNDECAYED = ("positions", "_embedding.weight", "layer_scale", "relative_position_bias_table")


@dataclass(frozen=True)
class Phase:
    """A phase of the config at its place in the run: steps ``start`` <= step < ``end``."""

    config: PhaseConfig
    start: int
    end: int


@dataclass(frozen=True)
class Plan:
    """The run as steps; epoch, phase and learning rate all follow from the step."""

    phases: tuple[Phase, ...]
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        return self.phases[-1].end

    def phase_at(self, step: int) -> Phase:
        return next(phase for phase in self.phases if step < phase.end)


def make_plan(config: TrainConfig, films: int, world_size: int = 1) -> Plan:
    """Raises UserError when an epoch has too few films for one step."""
    per_step = config.batch_size * world_size * config.accumulate
    steps_per_epoch = films // per_step
    if steps_per_epoch == 0:
        raise UserError(
            f"train: {films} films are fewer than one step takes (batch_size {config.batch_size} x "
            f"{world_size} processes x accumulate {config.accumulate} = {per_step}); lower train.batch_size"
        )
    edges = accumulate((phase.epochs * steps_per_epoch for phase in config.phases), initial=0)
    spans = zip(config.phases, pairwise(edges), strict=True)
    return Plan(tuple(Phase(phase, *span) for phase, span in spans), steps_per_epoch)


def lr_factor(phase: Phase, step: int) -> float:
    """Linear warm-up, then half a cosine from 1 down to ``final_lr``, reached at the phase's last step."""
    done, length, warmup = step - phase.start, phase.end - phase.start, phase.config.warmup_steps
    if done < warmup:
        return (done + 1) / (warmup + 1)
    progress = (done - warmup) / max(1, length - 1 - warmup)
    final = phase.config.final_lr
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


class ParameterGroup(TypedDict):
    """As torch's optimisers take it; ``lr`` changes with the step, ``base_lr`` keeps what it is at factor 1."""

    name: str
    params: list[nn.Parameter]
    lr: float
    base_lr: float
    weight_decay: float


def parameter_groups(network: VertebraNetwork, phase: PhaseConfig, weight_decay: float) -> list[ParameterGroup]:
    """Every trainable parameter in exactly one group; norms, biases, positions and embeddings are not decayed.

    Backbone block i of n learns at ``backbone_lr * layer_decay ** (n - 1 - i)``.
    """
    last = len(network.backbone.blocks) - 1
    backbone_lr = phase.lr if phase.backbone_lr is None else phase.backbone_lr
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("backbone.blocks."):
            block = int(name.split(".")[2])
            part, lr = f"backbone_{block}", backbone_lr * phase.layer_decay ** (last - block)
        elif name.startswith("backbone."):
            part, lr = "backbone_projections", backbone_lr
        else:
            part, lr = name.split(".")[0], phase.lr
        decayed = parameter.ndim > 1 and not name.endswith(UNDECAYED)
        group, decay = (part, weight_decay) if decayed else (f"{part}_undecayed", 0.0)
        new = ParameterGroup(name=group, params=[], lr=lr, base_lr=lr, weight_decay=decay)
        groups.setdefault(group, new)["params"].append(parameter)
    return list(groups.values())


def check_phases(network: VertebraNetwork, config: TrainConfig, input_size: tuple[int, int]) -> None:
    """Raises UserError for a phase that freezes what is not there, or everything, and for one that ``batch_size``
    is too small for; nothing is frozen afterwards."""
    for phase in config.phases:
        try:
            network.freeze(phase.freeze_stages, phase.freeze, layers=phase.freeze_layers)
        except UserError as error:
            raise UserError(f"train.phases, {phase.name}: {error}") from error
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UserError(f"train.phases, {phase.name}: everything is frozen, nothing learns; free something")
        check_batch_norms(network, config.batch_size, input_size)
    network.freeze(0)


def frozen_batch_norms(
    network: VertebraNetwork, *, backbone_is_random: bool
) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """Frozen BatchNorm layers whose weights are random: the backbone's only where it was not loaded."""
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        and not module.weight.requires_grad
        and (backbone_is_random or not name.startswith("backbone."))
    ]
