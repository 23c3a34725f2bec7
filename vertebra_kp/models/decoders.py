"""Decoders: maps of the encoder by name to one map at ``output_stride``, all with the same interface.

U-Net: Ronneberger et al., MICCAI 2015, with bilinear upsampling and BatchNorm. U-Net++, MAnet, LinkNet, UPerNet
and SegFormer are those of segmentation-models-pytorch.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from vertebra_kp.config.network import STRIDES, DecoderConfig
from vertebra_kp.models.pyramids import FeaturePyramid

# These decoders end at stride 4 and read nothing finer.
STRIDE_4 = ("upernet", "segformer")


def build_decoder(channels: dict[str, int], config: DecoderConfig) -> "UNetDecoder | Enlarged":
    """``channels`` of the maps that ``maps_for`` chose, finest first.

    Every decoder takes maps by name. It gives ``[B, out_channels, H/output_stride, W/output_stride]``, and the
    levels of its pyramid by name, which only an fpn has; it publishes ``out_channels``, and ``level_channels`` by
    name.
    """
    if config.name == "unet":
        return UNetDecoder(channels, config.channels, config.output_stride)
    if config.name == "fpn":
        finest = STRIDES[next(iter(channels))]
        return Enlarged(FeaturePyramid(channels, config.pyramid), finest // config.output_stride)
    factor = 4 // config.output_stride if config.name in STRIDE_4 else 1
    return Enlarged(LibraryDecoder(channels, config), factor)


def maps_for(config: DecoderConfig, available: Iterable[str]) -> list[str]:
    """Which of a backbone's maps the decoder reads, finest first: one finer than the output joins nowhere."""
    chosen = list(available) if config.skips is None else [*config.skips, "F4"]
    finest: int = 4 if config.name in STRIDE_4 else config.output_stride
    if config.name == "unetplusplus":
        finest = 2 * finest  # the library's last block joins no map
    return [name for name, stride in STRIDES.items() if name in chosen and stride >= finest]


def conv_norm_act(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class UpBlock(nn.Module):
    """Up by two, join the encoder's map of that size, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm_act(in_channels + skip_channels, out_channels), conv_norm_act(out_channels, out_channels)
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.convs(x)


class UNetDecoder(nn.Module):
    """From F4 at stride 32 to ``output_stride``; the maps in ``channels`` join where their stride is reached."""

    def __init__(self, channels: dict[str, int], widths: list[int], output_stride: int) -> None:
        super().__init__()
        name_of = {STRIDES[name]: name for name in channels}
        strides = [stride for stride in (16, 8, 4, 2, 1) if stride >= output_stride]
        self.joined = [name_of.get(stride) for stride in strides]
        inputs = [channels["F4"], *widths]
        self.blocks = nn.ModuleList(
            UpBlock(inputs[i], channels[name] if name else 0, widths[i]) for i, name in enumerate(self.joined)
        )
        self.out_channels = widths[len(strides) - 1]
        self.level_channels: dict[str, int] = {}

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x = features["F4"]
        for block, name in zip(self.blocks, self.joined, strict=True):
            x = block(x, features[name] if name else None)
        return x, {}


class Enlarged(nn.Module):
    """A decoder whose result is enlarged bilinearly by ``factor``: it ends coarser than asked for."""

    def __init__(self, decoder: "FeaturePyramid | LibraryDecoder", factor: int) -> None:
        super().__init__()
        self.decoder, self.factor, self.out_channels = decoder, factor, decoder.out_channels
        self.level_channels = decoder.level_channels

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x, levels = self.decoder(features)
        if self.factor != 1:
            x = F.interpolate(x, scale_factor=float(self.factor), mode="bilinear", align_corners=False)
        return x, levels


class LibraryDecoder(nn.Module):
    """A decoder of segmentation-models-pytorch behind the interface of the others."""

    def __init__(self, channels: dict[str, int], config: DecoderConfig) -> None:
        super().__init__()
        # The library counts maps from the film itself. Maps without channels stand for those that do not join.
        given = [0, *(channels.get(name, 0) for name in STRIDES)]
        steps = {4: 3, 2: 4, 1: 5}[config.output_stride]
        widths, pyramid_width = config.channels[:steps], config.pyramid.channels
        decoder: nn.Module
        if config.name == "unetplusplus":
            decoder = UnetPlusPlusDecoder(given, widths, n_blocks=steps, interpolation_mode="bilinear")
        elif config.name == "manet":
            decoder = MAnetDecoder(given, widths, n_blocks=steps, interpolation_mode="bilinear")
        elif config.name == "linknet":
            decoder = LinknetDecoder(given, prefinal_channels=widths[-1], n_blocks=steps)
        elif config.name == "upernet":
            decoder = UPerNetDecoder(given, decoder_channels=pyramid_width)
        else:
            decoder = SegformerDecoder(given, segmentation_channels=pyramid_width)
        self.decoder, self.names = decoder, tuple(channels)
        *_, last = (module for module in decoder.modules() if isinstance(module, nn.Conv2d))
        self.out_channels = last.out_channels
        self.level_channels: dict[str, int] = {}

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        f4 = features["F4"]
        B, _, h, w = f4.shape
        sizes = {name: (h * 32 // stride, w * 32 // stride) for name, stride in STRIDES.items()}
        maps = [features[n] if n in self.names else f4.new_empty(B, 0, *size) for n, size in sizes.items()]
        return self.decoder([f4.new_empty(B, 0, 32 * h, 32 * w), *maps]), {}
