"""From files to a predictor: a checkpoint, the stages of a file of weights, or several networks together."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig, sources_kind
from vertebra_kp.core.anatomy import View
from vertebra_kp.core.files import fault_of
from vertebra_kp.inference.checkpoint import Checkpoint, load_checkpoint, put_weights
from vertebra_kp.inference.corners import CornerPredictor
from vertebra_kp.inference.levels import LevelReader
from vertebra_kp.inference.network_file import CheckpointError, find_network, is_weights
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.inference.torch_stages import TorchLevels, TorchSpine, TorchVertebrae
from vertebra_kp.inference.weights import Stage, load_weights
from vertebra_kp.models.device import choose_device
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.initialise import WithoutFirstWeights
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork

N = TypeVar("N", bound=nn.Module)


def load(
    path: str | Path,
    device: str | None = None,
    *,
    members: Sequence[str | Path] = (),
    refine: str | Path | None = None,
) -> Predictor:
    """The network of a ``last.pt`` or ``best.pt``, with the weights that were evaluated, or of a file of weights.

    ``path`` may also be the name of weights that come with the package (``ap-spine``).

    Checkpoints of further ``members`` make an ensemble with it: heatmaps are averaged. That of ``refine``, trained
    on vertebrae (``data.patch``), refines each one that was found. ``device`` None takes a GPU where there
    is one. Raises CheckpointError for an unusable file and for networks that do not go together.
    """
    where = torch.device(choose_device(device))
    first, *others = _stages(path)
    if isinstance(first, _Levels):
        raise CheckpointError(f"{path}: a level network names what a spine network finds; export the two together")
    by_levels = [one for one in others if isinstance(one, _Levels)]
    own_refinement = [one for one in others if not isinstance(one, _Levels)]
    refinement = own_refinement if refine is None else _stages(refine)[-1:]
    refiner = _refiner(refinement[0], _view(first.config), where) if refinement else None
    if isinstance(first, _Spine):
        if members:
            raise CheckpointError(f"{path}: a spine network makes no ensemble; leave the other members out")
        levels = [_level_reader(one, first.config, where) for one in by_levels]
        return SpinePredictor(TorchSpine(_on(first.network, where)), first.config, first.step, refiner, levels)
    ensemble = [_corner_stage(one) for one in members]
    for other, name in zip(ensemble, members, strict=True):
        theirs = _frame(other.config)
        if different := [key for key, value in _frame(first.config).items() if theirs[key] != value]:
            raise CheckpointError(f"{name}: {different[0]} is not that of {path}; such networks make no ensemble")
    network: VertebraNetwork | Ensemble = first.network
    if ensemble:
        network = Ensemble([first.network, *(one.network for one in ensemble)], first.config.loss.heatmap)
    return CornerPredictor(
        _on(network, where), first.config, first.step, refiner, [one.config for one in ensemble]
    )


class _Corners(NamedTuple):
    """A network with a channel for every corner."""

    network: VertebraNetwork
    config: Config
    step: int


class _Spine(NamedTuple):
    network: SpineNetwork
    config: SpineConfig
    step: int


class _Levels(NamedTuple):
    network: LevelNetwork
    config: LevelConfig
    step: int


_Stage = _Corners | _Spine | _Levels


def _stages(name_or_path: str | Path) -> list[_Stage]:
    """The network of a checkpoint, or those of a file of weights: of whole images, then perhaps of single
    vertebrae and of their names.
    """
    path = find_network(name_or_path)
    return [_built(stage, path) for stage in (load_weights(path) if is_weights(path) else [load_checkpoint(path)])]


def _corner_stage(name_or_path: str | Path) -> _Corners:
    stage = _stages(name_or_path)[0]
    if not isinstance(stage, _Corners):
        raise CheckpointError(f"{name_or_path}: a spine network makes no ensemble; leave it out")
    return stage


def _built(stage: Stage | Checkpoint, path: Path) -> _Stage:
    kind = sources_kind(stage.config) or Config
    try:
        config = kind.model_validate(stage.config, strict=False)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: its config is of another version of vertebra_kp ({fault_of(error)})"
        ) from error
    if isinstance(config, SpineConfig):
        with WithoutFirstWeights():
            spine = SpineNetwork(config.network, load_weights=False)
        put_weights(spine, stage.weights, path)
        return _Spine(spine, config, stage.step)
    if isinstance(config, LevelConfig):
        with WithoutFirstWeights():
            levels = LevelNetwork(config, load_weights=False)
        put_weights(levels, stage.weights, path)
        return _Levels(levels, config, stage.step)
    with WithoutFirstWeights():
        corners = VertebraNetwork(config.network, config.data.keypoint_schema, load_weights=False)
    put_weights(corners, stage.weights, path)
    return _Corners(corners, config, stage.step)


def _level_reader(stage: _Levels, spine: SpineConfig, device: torch.device) -> LevelReader:
    if stage.config.keypoint_schema.view != spine.keypoint_schema.view:
        raise CheckpointError(f"{stage.config.name}: names vertebrae of another view than {spine.name} finds")
    return LevelReader(TorchLevels(_on(stage.network, device), stage.config), stage.config)


def _refiner(stage: _Stage, view: View, device: torch.device) -> Refiner:
    config = stage.config
    if not isinstance(config, Config) or config.data.patch is None or config.data.film_schema.view != view:
        raise CheckpointError(
            f"refine: {config.name} is no network of single vertebrae of {view} images; "
            "train one with data.patch, as the config aasce_vertebra does"
        )
    assert isinstance(stage, _Corners)
    return Refiner(TorchVertebrae(_on(stage.network, device), config), config)


def _view(config: Config | SpineConfig | LevelConfig) -> View:
    return (config.data.film_schema if isinstance(config, Config) else config.keypoint_schema).view


def _on(network: N, device: torch.device) -> N:
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _frame(config: Config) -> dict[str, object]:
    """What the members of an ensemble must have in common."""
    return {
        "data.anatomy": config.data.anatomy,
        "data.input_size": config.data.input_size,
        "network.decoder.output_stride": config.network.decoder.output_stride,
        "network.classification": config.network.classification,
        "loss.heatmap": config.loss.heatmap,
    }
