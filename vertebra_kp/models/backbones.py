"""Backbones: a film to feature maps by name, from ordered stages that freeze and unfreeze.

Maps are named by stride, whatever the network: F1, F2, F3, S16, F4 at strides 2, 4, 8, 16, 32.
EfficientNetV2-S: Tan and Le, ICML 2021. VGG: Simonyan and Zisserman, ICLR 2015. ResNet: He et al., CVPR 2016.
ConvNeXt: Liu et al., CVPR 2022. Layers are torchvision's and timm's, the classifier left out.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torchvision.models import convnext_small, efficientnet_v2_s, get_model, get_model_weights

from vertebra_kp.config_network import STRIDES, BackboneConfig
from vertebra_kp.errors import UserError

NAME_OF_STRIDE = {stride: name for name, stride in STRIDES.items()}
RANGE = re.compile(r"(\w+)\.\.(\w+)")

Stages = int | list[str]


class WeightsError(UserError):
    """Weights that were asked for cannot be had; the message says what to do instead."""


class BackboneError(UserError):
    """A backbone that cannot be built, or stages that it does not have."""


class Backbone(nn.Module):
    """``stages`` run one after the other; after some of them stands a map that is returned.

    Publishes ``stage_names``, and ``channels`` and ``strides`` of its maps by name, finest first. Stages at the
    front that are frozen build no graph, so they cost no backward time and no activations.
    """

    def __init__(
        self,
        stages: dict[str, nn.Module],
        maps: dict[str, str],
        channels: dict[str, int],
        *,
        projection: dict[str, int] | None = None,
        frozen_batch_norm: bool = False,
    ) -> None:
        """``maps`` gives the stage after which each map stands, ``channels`` what it has there, finest first.

        ``projection`` gives maps the channels that a 1x1 convolution makes of theirs.
        """
        super().__init__()
        self.stage_names = tuple(stages)
        self.blocks = nn.ModuleList(stages.values())
        self.maps_after = {i: [n for n in maps if maps[n] == stage] for i, stage in enumerate(stages)}
        projection = projection or {}
        self.projections = nn.ModuleDict(
            {name: nn.Conv2d(channels[name], width, 1) for name, width in projection.items()}
        )
        self.channels = {name: projection.get(name, channels[name]) for name in maps}
        self.frozen_batch_norm = frozen_batch_norm
        self.frozen: frozenset[int] = frozenset()
        self.freeze(0)

    def forward(self, film: Tensor) -> dict[str, Tensor]:
        """Film ``[B, 3, H, W]`` to its maps ``[B, C, H/stride, W/stride]``, finest first."""
        maps = {}
        x = film
        for i, block in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and i >= self.num_leading_frozen):
                x = block(x)
            for name, feature in zip(self.maps_after[i], x if isinstance(x, list) else [x], strict=False):
                if name in self.channels:
                    maps[name] = self.projections[name](feature) if name in self.projections else feature
        return maps

    @property
    def strides(self) -> dict[str, int]:
        return {name: STRIDES[name] for name in self.channels}

    def return_only(self, names: Iterable[str]) -> None:
        """Return these maps and no others, without the projections of those left out.

        Raises BackboneError for a map that this network has not.
        """
        wanted = set(names)
        if missing := sorted(wanted - self.channels.keys()):
            raise BackboneError(f"the backbone has no map {missing[0]}, only {', '.join(self.channels)}")
        self.channels = {name: width for name, width in self.channels.items() if name in wanted}
        # A projection that nobody reads would have no gradient.
        for name in set(self.projections) - wanted:
            del self.projections[name]

    @property
    def num_leading_frozen(self) -> int:
        return next((i for i in range(len(self.blocks)) if i not in self.frozen), len(self.blocks))

    def freeze(self, stages: Stages) -> None:
        """Freeze these stages too: no gradient, BatchNorm and stochastic depth stand still."""
        self._set_frozen(self.frozen | self.select(stages))

    def unfreeze(self, stages: Stages) -> None:
        """Let these stages learn again."""
        self._set_frozen(self.frozen - self.select(stages))

    def select(self, stages: Stages) -> frozenset[int]:
        """Places of stages: n for the stem and the first n stages, -n for all but the last n, names or ranges.

        Raises BackboneError for what is no stage of this network.
        """
        count, last = len(self.blocks), len(self.blocks) - 1
        if isinstance(stages, int):
            if not -count <= stages <= last:
                raise BackboneError(
                    f"freeze_stages is {stages}, the backbone has stages 1 to {last} after its stem"
                )
            return frozenset(range(stages + 1 if stages > 0 else count + stages if stages else 0))
        chosen: set[int] = set()
        for name in stages:
            ends = RANGE.fullmatch(name)
            first, end = ends.groups() if ends else (name, name)
            if unknown := {first, end} - set(self.stage_names):
                raise BackboneError(
                    f"freeze_stages: {sorted(unknown)[0]} is no stage of the backbone; "
                    f"it has {', '.join(self.stage_names)}"
                )
            chosen.update(range(self.stage_names.index(first), self.stage_names.index(end) + 1))
        return frozenset(chosen)

    def _set_frozen(self, frozen: frozenset[int]) -> None:
        self.frozen = frozen
        for i, block in enumerate(self.blocks):
            block.requires_grad_(i not in frozen)
        for norm in self._still_norms():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for i in self.frozen:
            self.blocks[i].eval()
        for norm in self._still_norms():
            norm.eval()
        return self

    def _still_norms(self) -> Iterable[nn.Module]:
        if not self.frozen_batch_norm:
            return ()
        return (module for module in self.blocks.modules() if isinstance(module, nn.BatchNorm2d))


def build_backbone(config: BackboneConfig, *, load_weights: bool = True) -> Backbone:
    """The backbone that a config names, with all maps that it has, and its weights when the config names some.

    Raises BackboneError for an unknown network or a projection of a map that it lacks, WeightsError where weights
    cannot be had.
    """
    if config.name.startswith("timm/"):
        whole = timm_network(config.name.removeprefix("timm/"))
        stages = timm_stages(whole) or {"stem": WholeNetwork(whole)}
    else:
        whole, stages = torchvision_stages(config.name, config.stochastic_depth)
    maps, channels = _maps_of(stages, config.name)
    if missing := [name for name in config.projection or {} if name not in maps]:
        raise BackboneError(
            f"network.backbone.projection: {config.name} has no map {missing[0]}, only {', '.join(maps)}"
        )
    if load_weights and config.weights != "none":
        load_backbone_weights(whole, stages, config)
    return Backbone(
        stages, maps, channels, projection=config.projection, frozen_batch_norm=config.frozen_batch_norm
    )


def torchvision_stages(name: str, stochastic_depth: float) -> tuple[nn.Module, dict[str, nn.Module]]:
    """torchvision's network with random weights, and its layers as stages."""
    if name == "efficientnet_v2_s":
        network = efficientnet_v2_s(weights=None, stochastic_depth_prob=stochastic_depth)
        return network, _numbered(list(network.features[:7]))
    if name == "convnext_small":
        network = convnext_small(weights=None, stochastic_depth_prob=stochastic_depth)
        f = network.features  # a stage is preceded by its downsampling
        return network, _numbered([f[0], f[1], f[2:4], f[4:6], f[6:8]])
    if name.startswith("resnet"):
        network = get_model(name, weights=None)
        stem = nn.Sequential(network.conv1, network.bn1, network.relu)
        first = nn.Sequential(network.maxpool, network.layer1)
        return network, _numbered([stem, first, network.layer2, network.layer3, network.layer4])
    network = get_model(name, weights=None)
    pools = [i for i, layer in enumerate(network.features) if isinstance(layer, nn.MaxPool2d)]
    starts = [0, *pools, len(network.features)]  # a stage begins by halving the map; the last does nothing else
    return network, _numbered([network.features[a:b] for a, b in pairwise(starts)])


def timm_network(name: str) -> nn.Module:
    """timm's network of features, with random weights; windowed networks are told that films vary in size."""
    try:
        try:
            return timm.create_model(name, features_only=True, pretrained=False, strict_img_size=False)
        except TypeError:  # most networks take any size and know no such option
            return timm.create_model(name, features_only=True, pretrained=False)
    except Exception as error:
        raise BackboneError(f"network.backbone.name: timm has no encoder {name} ({error})") from error


def timm_stages(network: nn.Module) -> dict[str, nn.Module] | None:
    """The layers of timm's network as stages, one per map; None where they are no plain sequence."""
    if hasattr(network, "conv_stem") and hasattr(network, "_stage_out_idx"):  # its EfficientNets and MobileNets
        stem = [
            layer for key in ("conv_stem", "bn1", "act1") if (layer := getattr(network, key, None)) is not None
        ]
        return _numbered([nn.Sequential(*stem), *network.blocks])
    if not hasattr(network, "return_layers"):
        return None
    layers = list(network.children())
    ends = [i for i, key in enumerate(network.keys()) if key in network.return_layers]
    starts = [0, *(end + 1 for end in ends)]
    stages: list[nn.Module] = [nn.Sequential(*layers[a:b]) for a, b in pairwise(starts)]
    if str(network.output_fmt).endswith("NHWC"):
        stages = [ChannelsFirst(stage, first=i == 0) for i, stage in enumerate(stages)]
    return _numbered(stages)


class WholeNetwork(nn.Module):
    """A network whose branches run side by side, such as HRNet: one stage that gives all maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, film: Tensor) -> list[Tensor]:
        return list(self.network(film))


class ChannelsFirst(nn.Module):
    """A stage of a network that keeps channels last, with its map as the others have it."""

    def __init__(self, stage: nn.Module, *, first: bool) -> None:
        super().__init__()
        self.stage, self.first = stage, first

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x if self.first else x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _numbered(stages: list[nn.Module]) -> dict[str, nn.Module]:
    return {"stem" if i == 0 else f"stage{i}": stage for i, stage in enumerate(stages)}


def _maps_of(stages: dict[str, nn.Module], name: str) -> tuple[dict[str, str], dict[str, int]]:
    """Map by map, finest first: the last stage of that stride, and the channels there, found with a small film."""
    side, after, channels = 64, {}, {}  # two cells at stride 32
    x: Tensor | list[Tensor] = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        for stage_name, stage in stages.items():
            was_training = stage.training
            try:
                x = stage.eval()(x)
            except Exception as error:
                raise BackboneError(
                    f"network.backbone.name: {name} does not take films of any size ({error}); take another"
                ) from error
            stage.train(was_training)
            features = x if isinstance(x, list) else [x]
            strides = [side // feature.shape[-1] for feature in features]
            if len(set(strides)) < len(strides) or not all(stride in NAME_OF_STRIDE for stride in strides[1:]):
                raise BackboneError(f"network.backbone.name: {name} gives maps of strides {strides}; take another")
            for stride, feature in zip(strides, features, strict=True):
                if map_name := NAME_OF_STRIDE.get(stride):
                    after[map_name], channels[map_name] = stage_name, feature.shape[1]
    if "F4" not in after:
        raise BackboneError(f"network.backbone.name: {name} does not go down to stride 32; take another")
    return after, channels


def load_backbone_weights(whole: nn.Module, stages: dict[str, nn.Module], config: BackboneConfig) -> None:
    """Load the library's own state dict into the stages of its network: ``imagenet`` fetches it, a path reads it.

    Raises:
        WeightsError: the weights cannot be fetched, read, or are of another network.
    """
    given = _fetched(config.name) if config.weights == "imagenet" else _read(Path(config.weights), config.name)
    given = {_key(key): value for key, value in given.items()}
    kept = {id(tensor) for stage in stages.values() for tensor in stage.state_dict(keep_vars=True).values()}
    own = {
        key: tensor
        for key, tensor in whole.state_dict(keep_vars=True).items()
        # Counts of batches are of no use here, and detectors' weights, whose norms are frozen, have none.
        if id(tensor) in kept and not key.endswith("num_batches_tracked")
    }
    shapes = {key: getattr(given.get(_key(key)), "shape", None) for key in own}
    wrong = [key for key, tensor in own.items() if shapes[key] != tensor.shape]
    if wrong:
        raise WeightsError(
            f"network.backbone.weights: {config.weights} lacks {len(wrong)} of {len(own)} tensors of "
            f"{config.name}, the first is {wrong[0]}; give a state dict of that network"
        )
    whole.load_state_dict({key: given[_key(key)] for key in own}, strict=False)


def _key(key: str) -> str:
    """timm's networks of features say stages_0 where the whole network, as published, has stages.0."""
    return re.sub(r"^(layers|stages|features)_(?=\d)", r"\1.", key)


def _fetched(name: str) -> dict[str, Tensor]:
    try:
        if name.startswith("timm/"):
            return timm.create_model(name.removeprefix("timm/"), pretrained=True).state_dict()
        return get_model_weights(name).DEFAULT.get_state_dict(progress=False)
    except Exception as error:
        raise WeightsError(
            f"network.backbone.weights: ImageNet weights cannot be fetched ({error}); give a local file of "
            f"{name}'s state dict (--set network.backbone.weights=FILE), or train from random weights "
            "(--set network.backbone.weights=none)"
        ) from error


def _read(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise WeightsError(
            f"network.backbone.weights: cannot read {path}: {error}; "
            f"give a state dict of {name}, saved with torch.save"
        ) from error
