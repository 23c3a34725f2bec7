"""Feature pyramids: every scale merged with its neighbours, all of them read at the finest.

Top-down path: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. The way back up: Liu et al.,
"Path Aggregation Network", CVPR 2018. All levels enlarged and added: Kirillov et al., "Panoptic Feature Pyramid
Networks", CVPR 2019, without its convolutions in between. Blocks and coarser levels are those of torchvision: a
pyramid that is built alike gives the same numbers.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.network import EXTRA_LEVELS, LEVEL_OF, PyramidConfig

LEAKY_SLOPE = 0.1


def convolutions(in_channels: int, size: int, count: int, config: PyramidConfig) -> list[nn.Module]:
    """``count`` convolutions of ``size`` x ``size``, with norm and activation where the config's order has them.

    ``conv_norm_act`` is torchvision's ``Conv2dNormActivation``.
    """
    width, norm_last = config.channels, config.order == "conv_act_norm"
    layers: list[nn.Module] = []
    for i in range(count):
        bias = norm_last or config.norm == "none"
        layers.append(nn.Conv2d(width if i else in_channels, width, size, padding=size // 2, bias=bias))
        if config.norm == "batch" and not norm_last:
            layers.append(nn.BatchNorm2d(width))
        if config.activation == "relu":
            layers.append(nn.ReLU(inplace=True))
        if config.activation == "leaky_relu":
            layers.append(nn.LeakyReLU(LEAKY_SLOPE, inplace=True))
    if config.norm == "batch" and norm_last and count:
        layers.append(nn.BatchNorm2d(width))
    return layers


def smoothing(config: PyramidConfig) -> nn.Sequential:
    """3x3 convolutions on a merged level, then enhancement as the config says; nothing where it says neither."""
    width = config.channels
    layers = convolutions(width, 3, config.smoothing_convs, config)
    if config.enhancement:
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def lateral(in_channels: int, config: PyramidConfig) -> nn.Module:
    """A map of the encoder in the pyramid's width."""
    if config.lateral == "conv":
        return nn.Conv2d(in_channels, config.channels, 1)
    return nn.Sequential(*convolutions(in_channels, 1, 1, config))


def halving(in_channels: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)


class FeaturePyramid(nn.Module):
    """Maps of the encoder to a pyramid of ``channels`` each, and to one map at the finest level's stride."""

    def __init__(self, channels: dict[str, int], config: PyramidConfig) -> None:
        """``channels`` of the maps that are levels, finest first."""
        super().__init__()
        width = config.channels
        self.names = tuple(channels)
        self.level_names = (*(LEVEL_OF[name] for name in channels), *EXTRA_LEVELS[: config.extra_levels])
        self.top_down, self.bottom_up = config.paths != "bottom_up", config.paths != "top_down"
        self.extra_kind, self.num_extra = config.extra, config.extra_levels
        self.laterals = nn.ModuleList(lateral(c, config) for c in channels.values())
        before = width if config.extra == "p6p7_from_p5" else list(channels.values())[-1]
        halvings = 0 if config.extra == "max_pool" else config.extra_levels
        self.extra = nn.ModuleList(halving(width if i else before, width) for i in range(halvings))
        count = len(channels) + (config.extra_levels if config.extra == "conv" else 0)
        self.smooth = nn.ModuleList(smoothing(config) for _ in range(count))
        if self.bottom_up:
            self.down = nn.ModuleList(halving(width, width) for _ in range(count - 1))
            self.smooth_up = nn.ModuleList(smoothing(config) for _ in range(count - 1))
        self.out_channels = width
        self.level_channels = dict.fromkeys(self.level_names, width)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Maps by name to the sum of all levels at the finest one's size, ``[B, C, H/s, W/s]``, and the levels."""
        levels = self.levels(features)
        finest, *coarser = levels.values()
        total = finest
        for level in coarser:
            total = total + F.interpolate(level, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        return total, levels

    def levels(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pyramid by name, P1 at stride 2 to P7 at stride 128, finest first."""
        levels = [lateral(features[name]) for lateral, name in zip(self.laterals, self.names, strict=True)]
        deepest = features[self.names[-1]]
        if self.extra_kind == "conv":
            x = deepest
            for halve in self.extra:
                x = halve(x)
                levels.append(x)
        if self.top_down:
            for i in reversed(range(len(levels) - 1)):
                levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:], mode="nearest")
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        if self.bottom_up:
            for i, (down, smooth) in enumerate(zip(self.down, self.smooth_up, strict=True)):
                levels[i + 1] = smooth(levels[i + 1] + down(levels[i]))
        if self.extra_kind != "conv":
            levels += self._coarser(levels[-1], deepest)
        return dict(zip(self.level_names, levels, strict=True))

    def _coarser(self, level: Tensor, deepest: Tensor) -> list[Tensor]:
        """Levels that take no part in the sums, as torchvision's LastLevelMaxPool and LastLevelP6P7 make them."""
        coarser: list[Tensor] = []
        x = deepest if self.extra_kind == "p6p7_from_c5" else level
        for i in range(self.num_extra):
            if self.extra_kind == "max_pool":
                x = F.max_pool2d(x, kernel_size=1, stride=2)
            else:
                x = self.extra[i](F.relu(x) if i else x)
            coarser.append(x)
        return coarser
