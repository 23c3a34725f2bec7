"""The whole network: backbone, transformer on F4, U-Net decoder with skips, heatmap and presence heads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vertebra_kp.anatomy import Schema
from vertebra_kp.config import NetworkConfig
from vertebra_kp.models.backbones import FEATURE_NAMES, EfficientNetV2S
from vertebra_kp.models.decoders import UNetDecoder
from vertebra_kp.models.heads import HeatmapHead, PresenceHead
from vertebra_kp.models.necks import TransformerNeck

PARTS = ("backbone", "neck", "decoder", "heatmap_head", "presence_head")
# torchvision's ImageNet statistics (0..1 RGB); a grey film is three equal channels.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Output:
    """``heatmap_logits`` [B, K, H/s, W/s]; ``presence_logits`` [B, L]; ``attention`` per layer, if asked."""

    heatmap_logits: Tensor
    presence_logits: Tensor
    attention: list[Tensor]


class VertebraNetwork(nn.Module):
    def __init__(
        self,
        backbone: EfficientNetV2S,
        neck: TransformerNeck,
        decoder: UNetDecoder,
        heatmap_head: HeatmapHead,
        presence_head: PresenceHead,
        *,
        skips: frozenset[str],
        output_stride: int,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.decoder = backbone, neck, decoder
        self.heatmap_head, self.presence_head = heatmap_head, presence_head
        self.skips, self.output_stride = skips, output_stride
        self.frozen_parts: frozenset[str] = frozenset()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, film: Tensor, return_attention: bool = False) -> Output:
        """Grey film ``[B, 1, H, W]`` in 0..1, H and W divisible by 32, to logits."""
        *finer, f4 = self.backbone(self.normalise(film))
        encoded, attention = self.neck(f4, return_attention)
        decoded = self.decoder(encoded, self._skips(finer))
        return Output(self.heatmap_head(decoded), self.presence_head(encoded), attention)

    def normalise(self, film: Tensor) -> Tensor:
        """Grey film ``[B, 1, H, W]`` to the three normalised channels that the backbone reads."""
        return (film - self.mean) / self.std

    def _skips(self, finer: list[Tensor]) -> list[Tensor | None]:
        """Maps for the way up, coarsest first: those chosen, None for the others and for the input's size."""
        named = zip(FEATURE_NAMES[:-1], finer, strict=True)
        return [*reversed([f if name in self.skips else None for name, f in named]), None]

    def freeze(self, stages: int, parts: frozenset[str] = frozenset()) -> None:
        """Freeze the backbone's first stages and whole named parts, and unfreeze everything else.

        A frozen part keeps weights, BatchNorm statistics and dropout still.
        """
        if unknown := parts - set(PARTS[1:]):
            raise ValueError(f"freeze: {sorted(unknown)} are no parts of the network; take {PARTS[1:]}")
        self.requires_grad_(True)
        self.frozen_parts = parts
        for part in parts:
            getattr(self, part).requires_grad_(False)
        self.backbone.freeze(stages)
        self.train(self.training)

    def train(self, mode: bool = True) -> "VertebraNetwork":
        super().train(mode)
        for part in self.frozen_parts:
            getattr(self, part).eval()
        return self


def build_network(config: NetworkConfig, schema: Schema, *, load_weights: bool = True) -> VertebraNetwork:
    """The network that a config describes, with the backbone's weights loaded when it names some.

    Without ``load_weights`` all are random: a checkpoint that follows brings its own.
    """
    stride_of = dict(zip(FEATURE_NAMES, EfficientNetV2S.strides, strict=True))
    # A map finer than the output joins nowhere: projecting it would leave parameters without a gradient.
    skips = frozenset(n for n in config.decoder.skips if stride_of[n] >= config.decoder.output_stride)
    projection = {}
    if config.backbone.projection:
        widths = zip(FEATURE_NAMES, config.backbone.projection, strict=True)
        projection = {name: width for name, width in widths if name in skips or name == "F4"}
    backbone = EfficientNetV2S(config.backbone.stochastic_depth, projection)
    if load_weights and config.backbone.weights != "none":
        backbone.load_weights(config.backbone.weights)
    neck_config = config.neck
    neck = TransformerNeck(
        backbone.channels[-1],
        depth=neck_config.depth,
        width=neck_config.width,
        heads=neck_config.heads,
        mlp_ratio=neck_config.mlp_ratio,
        dropout=neck_config.dropout,
        positions=neck_config.positions,
    )
    joined = [c if name in skips else 0 for name, c in zip(FEATURE_NAMES, backbone.channels, strict=True)]
    decoder = UNetDecoder(
        neck.out_channels,
        [*reversed(joined[:-1]), 0],
        config.decoder.channels,
        config.decoder.output_stride,
    )
    return VertebraNetwork(
        backbone,
        neck,
        decoder,
        HeatmapHead(decoder.out_channels, schema.num_channels),
        PresenceHead(neck.out_channels, schema.num_levels, config.presence_dropout),
        skips=skips,
        output_stride=config.decoder.output_stride,
    )
