"""Networks to give away: one safetensors file with weights of 8 bits, the configs, and where they come from.

A file holds the stages of one predictor: a network of whole images and, where it has one, a crop refinement.
Weights of layers are rounded to 8 bits per output channel; everything of one dimension and the head that names
vertebrae stay as they are. The package brings some files along, each in a folder of its name, with its checksum,
its calibration and a model card.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict  # of Python 3.11 pydantic takes no other

from vertebra_kp.core.files import fault_of, parse_json, replacing, write_text
from vertebra_kp.inference.network_file import CheckpointError

FORMAT = "1"
SCALE = "8-bit scale of "  # before the name of a rounded tensor: the name of its scales
LARGEST = 127
SMALLEST_ROUNDED = 256  # numbers in a tensor: rounding smaller ones would save nothing
NOT_ROUNDED = ".level_head."  # in a tensor's name: names of vertebrae hang on close calls


@dataclass(frozen=True)
class Stage:
    """A network's ``config`` as plain data, its weights by name, and the training ``step`` they are of."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    step: int


class _Described(TypedDict):
    """A stage without its weights, as the metadata has it."""

    config: dict[str, Any]
    step: int


def save_weights(stages: list[Stage], path: Path, about: dict[str, Any]) -> str:
    """Write the stages with their weights rounded, and the checksum beside; returns the checksum (SHA-256).

    ``about`` is what a reader of the file should know: data, version of the code.
    """
    tensors: dict[str, Tensor] = {}
    for i, stage in enumerate(stages):
        for name, value in stage.weights.items():
            tensors |= _rounded(f"{i}.{name}", value.detach().cpu().contiguous())
    configs = [{"config": stage.config, "step": stage.step} for stage in stages]
    metadata = {"format": FORMAT, "looks": json.dumps(configs), "about": json.dumps(about)}
    metadata["sha256"] = _content_sha256(tensors, metadata)
    with replacing(path) as file:
        file.write(save(tensors, metadata))
    digest = _sha256(path)
    write_text(f"{digest}  {path.name}\n", _checksum_file(path))
    return digest


def load_weights(path: Path) -> list[Stage]:
    """Raises CheckpointError for a file that is damaged, of another format, or not the one of its checksum.

    That stands in the file (not in those of earlier versions) and perhaps in another one beside it.
    """
    checksum = _checksum_file(path)
    if checksum.is_file() and checksum.read_bytes().split()[:1] != [_sha256(path).encode()]:
        raise CheckpointError(f"{path}: is not the file of {checksum.name}; fetch it again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: no weights of vertebra_kp in format {FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("sha256", "") not in ("", _content_sha256(tensors, metadata)):
            raise CheckpointError(f"{path}: is damaged, its checksum differs; fetch it again")
        stages = TypeAdapter(list[_Described]).validate_python(parse_json(metadata["looks"]))
        if not stages:
            raise ValueError("it holds no network")
        exact = {name: _exact(tensors, name) for name in tensors if not name.startswith(SCALE)}
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:  # RuntimeError: shapes
        raise CheckpointError(f"{path}: cannot be read ({fault_of(error)}); fetch it again") from error
    return [
        Stage(
            stage["config"],
            {name.removeprefix(f"{i}."): value for name, value in exact.items() if name.startswith(f"{i}.")},
            stage["step"],
        )
        for i, stage in enumerate(stages)
    ]


def _rounded(name: str, value: Tensor) -> dict[str, Tensor]:
    is_small = value.ndim < 2 or value.numel() < SMALLEST_ROUNDED
    if is_small or NOT_ROUNDED in name or not value.is_floating_point():
        return {name: value}
    scale = value.abs().flatten(1).amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
    steps = value / scale.reshape(-1, *[1] * (value.ndim - 1))
    return {name: steps.round().to(torch.int8), SCALE + name: scale}


def _exact(tensors: dict[str, Tensor], name: str) -> Tensor:
    value, scale = tensors[name], tensors.get(SCALE + name)
    return value if scale is None else value * scale.reshape(-1, *[1] * (value.ndim - 1))


def _content_sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of everything that a file says, in an order of its own: the file itself cannot hold its checksum."""
    digest = hashlib.sha256()
    for name in ("format", "looks", "about"):
        digest.update(metadata.get(name, "").encode() + b"\n")
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
