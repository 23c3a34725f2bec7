"""Feature pyramids: every scale merged with its neighbours, all of them read at the finest.

Top-down path: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. The way back up: Liu et al.,
"Path Aggregation Network", CVPR 2018. All levels enlarged and added: Kirillov et al., "Panoptic Feature Pyramid
Networks", CVPR 2019, without its convolutions in between.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.network import PyramidConfig

LEAKY_SLOPE = 0.1


def smoothing(channels: int, config: PyramidConfig) -> nn.Sequential:
    """3x3 convolutions with their activation, then norm and enhancement as the config says."""
    layers: list[nn.Module] = []
    for _ in range(config.smoothing_convs):
        layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        if config.activation == "relu":
            layers.append(nn.ReLU(inplace=True))
        if config.activation == "leaky_relu":
            layers.append(nn.LeakyReLU(LEAKY_SLOPE, inplace=True))
    if config.norm == "batch":
        layers.append(nn.BatchNorm2d(channels))
    if config.enhancement:
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def halving(in_channels: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)


class FeaturePyramid(nn.Module):
    """Maps of the encoder to a pyramid of ``channels`` each, and to one map at the finest level's stride."""

    def __init__(self, channels: dict[str, int], config: PyramidConfig) -> None:
        """``channels`` of the maps that are levels, finest first."""
        super().__init__()
        width = config.channels
        self.names = tuple(channels)
        self.top_down, self.bottom_up = config.paths != "bottom_up", config.paths != "top_down"
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels.values())
        deepest = list(channels.values())[-1]
        self.extra = nn.ModuleList(halving(width if i else deepest, width) for i in range(config.extra_levels))
        count = len(channels) + config.extra_levels
        self.smooth = nn.ModuleList(smoothing(width, config) for _ in range(count))
        if self.bottom_up:
            self.down = nn.ModuleList(halving(width, width) for _ in range(count - 1))
            self.smooth_up = nn.ModuleList(smoothing(width, config) for _ in range(count - 1))
        self.out_channels = width

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Maps by name to the sum of all levels, enlarged to the finest: ``[B, channels, H/s, W/s]``."""
        finest, *coarser = self.levels(features)
        total = finest
        for level in coarser:
            total = total + F.interpolate(level, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        return total

    def levels(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The pyramid, finest level first."""
        levels = [lateral(features[name]) for lateral, name in zip(self.laterals, self.names, strict=True)]
        x = features[self.names[-1]]
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
        return levels
