"""All that changes while training, as one object that a checkpoint holds completely."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import fault_of
from vertebra_kp.inference.checkpoint import (
    Checkpoint,
    Moments,
    moments_by_name,
    put_weights,
    random_state,
    restore_moments,
    restore_random_state,
)
from vertebra_kp.inference.network_file import CheckpointError
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.distributed import Group
from vertebra_kp.training.precision import autocast_dtype
from vertebra_kp.training.schedule import Phase, check_phases, parameter_groups
from vertebra_kp.training.start import begins_anew, load_start

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass
class Progress:
    """Figures of the selection of the best checkpoint, the time spent, and which films it all rests on."""

    best_error: float = math.inf
    best_step: int = 0
    evaluations_since_best: int = 0
    seconds: float = 0.0
    films: str = ""


@dataclass
class RunState:
    network: VertebraNetwork
    average: AveragedModel | None
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    parked_moments: Moments = field(default_factory=dict)
    """The optimiser's state of parameters that this phase keeps frozen."""
    step: int = 0
    progress: Progress = field(default_factory=Progress)

    @property
    def evaluated_network(self) -> VertebraNetwork:
        """What predicts: the moving average where there is one."""
        return self.network if self.average is None else cast(VertebraNetwork, self.average.module)


def start_state(
    config: Config, schema: Schema, group: Group, phase: Phase, *, load_weights: bool = True
) -> RunState:
    """The state before the first step: the same weights on every rank, other random numbers."""
    torch.manual_seed(config.train.seed)
    train = config.train
    network = VertebraNetwork(config.network, schema, load_weights=load_weights and begins_anew(train, "backbone"))
    if load_weights and train.start_from is not None:
        load_start(network, train)
    check_phases(network, train, config.data.input_size)
    network = network.to(group.device).to(memory_format=torch.channels_last)
    average = None
    if config.train.ema_decay:
        update = moving_average(config.train.ema_decay)
        average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
        average.requires_grad_(False)
    torch.manual_seed(config.train.seed + group.rank)
    scale_gradients = autocast_dtype(config.train.precision, group.device) == torch.float16
    scaler = torch.amp.GradScaler(group.device.type, enabled=scale_gradients)
    return RunState(network, average, new_optimiser(network, config, phase), scaler)


def new_optimiser(network: VertebraNetwork, config: Config, phase: Phase) -> torch.optim.AdamW:
    groups = parameter_groups(network, phase.config, config.train.weight_decay)
    return torch.optim.AdamW([dict(group) for group in groups])


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential moving average that starts as a plain mean, so the random first weights are soon gone.

    The returned function updates all tensors of one kind at once, in place: one by one would hold up a GPU.
    """

    @torch.no_grad()
    def update(averages: Tensors, currents: Tensors, updates: Tensor | int) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, max(1 - decay, 1 / (int(updates) + 1)))
        else:  # counters
            torch._foreach_copy_(averages, currents)

    return update


def change_optimiser(state: RunState, config: Config, phase: Phase) -> None:
    """An optimiser for what this phase trains; moments of earlier phases are kept, across a freeze too."""
    moments = all_moments(state)
    state.optimiser = new_optimiser(state.network, config, phase)
    take_up_moments(state, moments)


def all_moments(state: RunState) -> Moments:
    return state.parked_moments | moments_by_name(state.optimiser, state.network)


def take_up_moments(state: RunState, moments: Moments) -> None:
    """Give the optimiser those of the parameters it trains, and park the others."""
    restore_moments(state.optimiser, state.network, moments)
    trained = moments_by_name(state.optimiser, state.network)
    state.parked_moments = {name: value for name, value in moments.items() if name not in trained}


def checkpoint_of(state: RunState, config: Config, group: Group) -> Checkpoint | None:
    """The state as a checkpoint on the main process, None on others. All processes must call it."""
    random = group.gather(random_state())
    if not group.is_main:
        return None
    return Checkpoint(
        config=config.model_dump(mode="json"),
        step=state.step,
        network=state.network.state_dict(),
        average=None if state.average is None else state.average.module.state_dict(),
        moments=all_moments(state),
        scaler=state.scaler.state_dict(),
        random=random,
        progress=vars(state.progress),
    )


def restore(state: RunState, checkpoint: Checkpoint, group: Group) -> None:
    """Take up a checkpoint; UserError where the processes or the films changed: the batches would be others.

    CheckpointError where parts of it are of another run.
    """
    if len(checkpoint.random) != group.world_size:
        raise UserError(
            f"cannot resume: the run had {len(checkpoint.random)} processes, now there are {group.world_size}; "
            "start as many, a resumed run sees the same batches"
        )
    try:
        progress = TypeAdapter(Progress).validate_python(checkpoint.progress)
    except ValueError as error:
        raise CheckpointError(f"cannot resume: progress: {fault_of(error)}; start anew") from None
    films = progress.films
    if films != state.progress.films:
        raise UserError(
            f"cannot resume: the run was started on other films ({films}, now {state.progress.films}): the data "
            "folder or the split file has changed; restore them, or start a new run"
        )
    put_weights(state.network, checkpoint.network, "cannot resume")
    if state.average is not None and checkpoint.average is not None:
        put_weights(state.average.module, checkpoint.average, "cannot resume")
        state.average.n_averaged.fill_(checkpoint.step)  # one update a step
    take_up_moments(state, checkpoint.moments)
    if checkpoint.scaler:  # empty where the run was in bf16: a GPU without it starts a new one
        state.scaler.load_state_dict(checkpoint.scaler)
    state.step = checkpoint.step
    state.progress = progress
    restore_random_state(checkpoint.random[group.rank])
