"""The weights that a training begins with: another run's, published ones, or a state dict."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from vertebra_kp.config.section import StartSection
from vertebra_kp.config.spine import LevelConfig, SpineConfig, sources_kind
from vertebra_kp.core.errors import UserError
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.network_file import CheckpointError, find_network, is_weights
from vertebra_kp.inference.weights import load_weights
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.spine_network import SpineNetwork
from vertebra_kp.models.state_dicts import OwnFileError, likely_cause, read_state_dict, without_prefix

log = logging.getLogger(__name__)

KINDS = {
    None: "a network with a channel for every corner",
    SpineConfig: "a spine network",
    LevelConfig: "a level network",
}
KIND_OF = {SpineNetwork: KINDS[SpineConfig], LevelNetwork: KINDS[LevelConfig]}


class _Given(NamedTuple):
    """Weights by name, and the config of the network that they are of, where it is known."""

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any] | None


def begins_anew(train: StartSection, part: str) -> bool:
    """Whether a part of the network takes no weights from ``start_from``."""
    return train.start_from is None or (train.start_parts is not None and part not in train.start_parts)


def load_start(network: nn.Module, train: StartSection) -> None:
    """Load what ``start_from`` names, into ``start_parts`` or all of the network.

    Of a file with several stages, the one that fits best. Raises UserError where parts are not there, and where
    tensors do not fit, with the likely cause and the parts that would.
    """
    assert train.start_from is not None
    parts = [name for name, _ in network.named_children()]
    if unknown := [part for part in train.start_parts or () if part not in parts]:
        raise UserError(f"train.start_parts: {unknown[0]} is no part of this network; take of {', '.join(parts)}")
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if train.start_parts is None or name.partition(".")[0] in train.start_parts
    }
    candidates = _read(train.start_from, own)
    given = min(candidates, key=lambda candidate: len(_wrong(own, candidate.weights)))
    shapes = {name: tensor.shape for name, tensor in own.items()}
    extra = given.weights if train.start_parts is None else {}  # what the network lacks matters if all is to fit
    more = sorted(name for name in extra if name not in shapes)
    if wrong := sorted({*_wrong(own, given.weights), *more}):
        raise UserError(
            f"train.start_from: {train.start_from} is of another network, {len(wrong)} tensors differ, the first "
            f"is {wrong[0]}: {_cause(network, given, own)}; {_remedy(wrong, parts)}"
        )
    network.load_state_dict({name: given.weights[name] for name in own}, strict=train.start_parts is None)
    if train.start_parts is not None:
        others = [part for part in parts if part not in train.start_parts]
        log.info("%s: gives %s; %s begin anew", train.start_from, *map(", ".join, (train.start_parts, others)))


def _read(name_or_path: Path, own: Mapping[str, Tensor]) -> list[_Given]:
    path = find_network(name_or_path)
    try:
        stages = load_weights(path) if is_weights(path) else [load_checkpoint(path)]
    except CheckpointError as error:
        try:
            foreign = read_state_dict(path)
        except OwnFileError:
            raise error from None
        except UserError as other:
            raise UserError(f"train.start_from: {other}") from error
        return [_Given(without_prefix(foreign, own), None)]
    return [_Given(stage.weights, stage.config) for stage in stages]


def _wrong(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The tensors of the network that are not given in their shape."""
    return [name for name, tensor in own.items() if getattr(given.get(name), "shape", None) != tensor.shape]


def _cause(network: nn.Module, given: _Given, own: Mapping[str, Tensor]) -> str:
    if given.config is None:
        return likely_cause(given.weights, own, "the network of this config")
    kind = sources_kind(given.config)
    theirs, ours = KINDS[kind], KIND_OF.get(type(network), KINDS[None])
    if theirs != ours:
        return f"it is {theirs}, this config is of {ours}"
    data = given.config["data"] if kind is None else given.config
    backbone = given.config["network"]["backbone"]["name"]
    return f"it was trained for {data['anatomy']} with the backbone {backbone} (its config says the rest)"


def _remedy(wrong: Sequence[str], parts: Sequence[str]) -> str:
    differing = {name.partition(".")[0] for name in wrong}
    if fitting := [part for part in parts if part not in differing]:
        return f"set network and data.anatomy as there, or train.start_parts to what fits: [{', '.join(fitting)}]"
    return "set network and data.anatomy as there"
