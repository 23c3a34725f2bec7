"""A run on disk: written atomically, complete, and read without running any code from the file."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import replacing

FORMAT = 2

Moments = dict[str, dict[str, Tensor]]  # the optimiser's state by parameter name


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run consists of after ``step`` optimiser steps.

    ``config`` is the resolved config as plain data; ``network`` and ``average`` (EMA, None without) are
    state dicts; ``moments`` the optimiser's state by parameter name; ``random`` the generator states of
    every rank; ``progress`` figures of the selection (best error, evaluations without a better one).
    """

    config: dict[str, Any]
    step: int
    network: dict[str, Tensor]
    average: dict[str, Tensor] | None
    moments: Moments
    scaler: dict[str, Any]
    random: list[dict[str, Tensor]]
    progress: dict[str, Any]
    format: int = FORMAT

    @property
    def weights(self) -> dict[str, Tensor]:
        """What predicts: the moving average where there is one."""
        return self.network if self.average is None else self.average


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """A crash leaves the old checkpoint or the new one, whole."""
    with replacing(path) as file:
        # Not dataclasses.asdict: it would copy every tensor.
        torch.save({field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises CheckpointError for a missing, damaged or foreign file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a last.pt or best.pt")
    try:
        with path.open("rb") as file:  # given a path, torch goes by the ending of its name
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}); the file is damaged or no checkpoint"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of vertebra_kp in format {FORMAT}")
    if missing := {field.name for field in fields(Checkpoint)} - content.keys():
        raise CheckpointError(f"{path}: lacks {', '.join(sorted(missing))}; the file is no whole checkpoint")
    return Checkpoint(**content)


def moments_by_name(optimiser: torch.optim.Optimizer, network: nn.Module) -> Moments:
    """The optimiser's state of each parameter under the parameter's name."""
    return {
        name: dict(optimiser.state[parameter])
        for name, parameter in network.named_parameters()
        if parameter in optimiser.state
    }


def restore_moments(optimiser: torch.optim.Optimizer, network: nn.Module, moments: Moments) -> None:
    """Give the parameters that this optimiser trains their earlier state; others keep none."""
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        if id(parameter) in trained and name in moments:
            optimiser.state[parameter] = {
                # AdamW keeps its step count on the CPU, the moments beside the parameter.
                key: value if key == "step" else value.to(parameter.device, copy=True)
                for key, value in moments[name].items()
            }


def random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
