"""A run on disk: written atomically, complete, and read without running any code from the file."""

import errno
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor, nn

from vertebra_kp.core.files import check_archive, fault_of, replacing
from vertebra_kp.inference.network_file import CheckpointError

FORMAT = 2

Moments = dict[str, dict[str, Tensor]]  # the optimiser's state by parameter name


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run consists of after ``step`` optimiser steps.

    ``config`` is the resolved config as plain data; ``network`` and ``average`` (EMA, None without) are
    state dicts; ``moments`` the optimiser's state by parameter name; ``random`` the generator states of
    every rank; ``progress`` figures of the selection (best error, evaluations without a better one).
    """

    __pydantic_config__: ClassVar = ConfigDict(arbitrary_types_allowed=True)  # tensors

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
    """A crash or a full disk leaves the old checkpoint or the new one, whole; OSError names the file."""
    with replacing(path) as file:
        try:
            # Not dataclasses.asdict: it would copy every tensor.
            torch.save({field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}, file)
        except RuntimeError as error:  # torch's, of a write that was cut short
            raise OSError(errno.ENOSPC, "cannot be written; is the disk full?", str(path)) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises CheckpointError for a missing, damaged or foreign file; it names another one that is whole."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a last.pt or best.pt")
    try:
        content = read_tensors(path)
    except CheckpointError as error:
        if whole := [
            other.name for other in sorted(path.parent.glob("*.pt")) if other != path and _is_whole(other)
        ]:
            raise CheckpointError(f"{error}; {whole[0]} beside it is whole and can take its place") from error
        raise
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of vertebra_kp in format {FORMAT}")
    if missing := {field.name for field in fields(Checkpoint)} - content.keys():
        raise CheckpointError(f"{path}: lacks {', '.join(sorted(missing))}; the file is no whole checkpoint")
    try:
        TypeAdapter(Checkpoint).validate_python(content)
        return Checkpoint(**content)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {fault_of(error)}; the file is no whole checkpoint") from None


def read_tensors(path: Path) -> Any:
    """What torch has saved in a file, checked against the checksums that its archive has for every part.

    Raises CheckpointError for a file that is damaged, or that torch has not saved so.
    """
    try:
        check_archive(path)
        with path.open("rb") as file:  # by its name, torch would take it for another format
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of the archive, of the pickle in it, of whatever that names
        told = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read ({told}); the file is damaged or no checkpoint") from error


def _is_whole(path: Path) -> bool:
    try:
        check_archive(path)
    except Exception:  # as above
        return False
    return True


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], origin: str | Path) -> None:
    """Give a network the weights from ``origin``; raises CheckpointError where they are those of another one."""
    own = {name: value.shape for name, value in network.state_dict().items()}
    given = {name: value.shape for name, value in weights.items()}
    if wrong := sorted(dict(own.items() ^ given.items())):
        raise CheckpointError(
            f"{origin}: the weights are not those of its config, {len(wrong)} tensors differ, the first is "
            f"{wrong[0]}; the file was changed or is of another version"
        )
    network.load_state_dict(weights)


def moments_by_name(optimiser: torch.optim.Optimizer, network: nn.Module) -> Moments:
    """The optimiser's state of each parameter under the parameter's name."""
    return {
        name: dict(optimiser.state[parameter])
        for name, parameter in network.named_parameters()
        if parameter in optimiser.state
    }


def restore_moments(optimiser: torch.optim.Optimizer, network: nn.Module, moments: Moments) -> None:
    """Give the parameters that this optimiser trains their earlier state; others keep none.

    Raises CheckpointError for a state of another size.
    """
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        if id(parameter) in trained and name in moments:
            if any(key != "step" and value.shape != parameter.shape for key, value in moments[name].items()):
                raise CheckpointError(
                    f"cannot resume: the optimiser's state of {name} has another size; start anew"
                )
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
    """Raises CheckpointError for what is no such state."""
    try:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"cannot resume: the random state is none ({error}); start anew") from None
