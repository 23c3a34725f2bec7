"""Weights as other programs save them: the state dict in a file, by the names that a network here has."""

import tarfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import ZIP, check_archive

# Of our own files (inference/checkpoint.py, weights.py), whose readers also check them
CHECKPOINT_KEYS = {"format", "network", "moments"}
WEIGHTS_KEYS = {"format", "looks"}


class OwnFileError(UserError):
    """A file of vertebra_kp where one of another program was to be read."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch or safetensors, by name; the largest collection, where it holds several.

    So what wraps a state dict (``state_dict``, ``model``) is undone. Raises UserError for what holds none and for
    what would have to run code, OwnFileError for a checkpoint or weights of vertebra_kp.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # 8 bytes of length, then a header of JSON
        own, content = _read_safetensors(path) if is_safetensors else _read_torch(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except Exception as error:
        raise UserError(
            f"cannot read {path}: it is damaged, or holds more than tensors ({type(error).__name__}); save the "
            "state dict alone, torch.save(network.state_dict(), FILE)"
        ) from error
    if own:
        raise OwnFileError(f"{path} is a network of vertebra_kp, which train.start_from takes")
    tensors = max(_collections(content), key=len, default={})
    if not tensors:
        raise UserError(f"{path} holds no tensors by name")
    return tensors


def _read_torch(path: Path) -> tuple[bool, object]:
    """Whether it is a file of ours, and what is in it; tar files are refused: torch unpacks them to look."""
    with path.open("rb") as file:
        start = file.read(len(ZIP))
    if start == ZIP or tarfile.is_tarfile(path):
        check_archive(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return isinstance(content, Mapping) and content.keys() >= CHECKPOINT_KEYS, content


def _read_safetensors(path: Path) -> tuple[bool, object]:
    with safe_open(path, framework="pt") as file:
        own = (file.metadata() or {}).keys() >= WEIGHTS_KEYS
        return own, {} if own else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _collections(content: object) -> list[dict[str, Tensor]]:
    """The tensors of every mapping in a file."""
    if not isinstance(content, Mapping):
        return []
    here = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return [here, *(found for value in content.values() for found in _collections(value))]


def without_prefix(given: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """``given`` without what stands before most of the names that are ``wanted``: ``module.``, ``backbone.``.

    As it is where no name is wanted. Tensors without the prefix are no part of the network and are left out.
    """
    prefixes: Counter[str] = Counter()
    for key in given:
        parts = key.split(".")
        for i in range(len(parts)):
            if (name := ".".join(parts[i:])) in wanted:
                prefixes[key.removesuffix(name)] += 1
    if not prefixes:
        return dict(given)
    prefix, _ = max(prefixes.items(), key=lambda item: (item[1], -len(item[0])))
    return {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}


def likely_cause(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str) -> str:
    """Why tensors do not fit those of ``network``, as the end of a sentence: what they seem to be of."""
    common = given.keys() & wanted.keys()
    if not common:
        example, own = next(iter(given)), next(iter(wanted))
        return (
            f"its tensors have other names ({example}, wanted {own}), so it is of another network, or of another "
            f"library's {network}"
        )
    misshapen = [name for name in wanted if name in common and given[name].shape != wanted[name].shape]
    if misshapen:
        name = misshapen[0]
        return (
            f"{name} has shape {list(given[name].shape)}, wanted {list(wanted[name].shape)}, so it is of another "
            f"size than {network}"
        )
    return f"the others fit, so it is of a part of {network}, or of another variant"
