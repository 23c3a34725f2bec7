"""U-Net decoder: up by two, join the encoder's map of that size, two convolutions; down to a stride.

Ronneberger et al., MICCAI 2015, with bilinear upsampling and BatchNorm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm_act(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class UpBlock(nn.Module):
    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm_act(in_channels + skip_channels, out_channels),
            conv_norm_act(out_channels, out_channels),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.convs(x)


class UNetDecoder(nn.Module):
    """From stride 32 to ``output_stride``. ``skip_channels[i]`` is what joins at stride 16, 8, 4, 2, 1."""

    def __init__(
        self, in_channels: int, skip_channels: list[int], channels: list[int], output_stride: int
    ) -> None:
        super().__init__()
        steps = (32 // output_stride).bit_length() - 1
        widths = [in_channels, *channels[:steps]]
        self.blocks = nn.ModuleList(UpBlock(widths[i], skip_channels[i], widths[i + 1]) for i in range(steps))
        self.out_channels = widths[-1]

    def forward(self, deepest: Tensor, skips: list[Tensor | None]) -> Tensor:
        """Map ``[B, C, H/32, W/32]`` and skips, coarsest first, to ``[B, C', H/stride, W/stride]``."""
        x = deepest
        for block, skip in zip(self.blocks, skips, strict=False):  # finer skips than the output are unused
            x = block(x, skip)
        return x
