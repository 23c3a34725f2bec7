"""The whole network: backbone, transformer on F4, decoder with skips, heatmap, presence and class heads."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vertebra_kp.config.network import NetworkConfig, size_fault
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.backbones import Backbone, Stages, build_backbone
from vertebra_kp.models.decoders import build_decoder, maps_for
from vertebra_kp.models.heads import ClassificationHead, HeatmapHead, PresenceHead
from vertebra_kp.models.initialise import initialise
from vertebra_kp.models.necks import Neck
from vertebra_kp.models.queries import QueryHead

PARTS = ("backbone", "neck", "decoder", "heatmap_head", "presence_head", "classification_head")


@dataclass(frozen=True)
class Output:
    """``heatmap_logits`` [B, K, H/s, W/s]; ``presence_logits`` [B, L]; ``class_logits`` by target, ``view`` [B, 2]
    and ``slip`` [B, L, 5], empty without that head; ``attention`` by map, per layer [B, heads, N, N], if asked.
    """

    heatmap_logits: Tensor
    presence_logits: Tensor
    class_logits: dict[str, Tensor]
    attention: dict[str, list[Tensor]]


class VertebraNetwork(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        decoder: nn.Module,
        heatmap_head: nn.Module,
        presence_head: PresenceHead,
        classification_head: ClassificationHead | None,
        *,
        output_stride: int,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.decoder = backbone, neck, decoder
        self.heatmap_head, self.presence_head = heatmap_head, presence_head
        self.classification_head = classification_head
        self.output_stride = output_stride
        self.frozen_parts: frozenset[str] = frozenset()
        mean, std = backbone.input_statistics
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, film: Tensor, return_attention: bool = False) -> Output:
        """Grey film ``[B, 1, H, W]`` in 0..1, H and W divisible by 32, to logits. ValueError for other sizes."""
        _, _, H, W = film.shape
        if fault := size_fault((H, W)):
            raise ValueError(fault)
        features = self.backbone(self.normalise(film))
        encoded, attention = self.neck(features, return_attention)
        decoded = self.decoder(encoded)
        f4 = encoded["F4"]
        classes = self.classification_head(f4) if self.classification_head is not None else {}
        return Output(self.heatmap_head(decoded, f4), self.presence_head(f4), classes, attention)

    def normalise(self, film: Tensor) -> Tensor:
        """Grey film ``[B, 1, H, W]`` to the three equal, normalised channels that the backbone reads."""
        return (film - self.mean) / self.std

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that this network has, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def freeze(self, stages: Stages, parts: Iterable[str] = ()) -> None:
        """Freeze these stages of the backbone and whole named parts, and unfreeze everything else.

        A frozen part keeps weights, BatchNorm statistics and dropout still. Raises UserError for
        what is not there.
        """
        _, *others = self.parts
        self.frozen_parts = frozenset(parts)
        if unknown := sorted(self.frozen_parts.difference(others)):
            raise UserError(
                f"freeze: {unknown[0]} is no part of the network beside its backbone; take of {', '.join(others)}"
            )
        self.requires_grad_(True)
        for part in self.frozen_parts:
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

    Without ``load_weights`` all are random: a checkpoint that follows brings its own. Raises BackboneError where
    the parts do not fit together, WeightsError where weights cannot be had.
    """
    backbone = build_backbone(config.backbone, load_weights=load_weights)
    decoder_maps = maps_for(config.decoder, backbone.channels)
    backbone.return_only(decoder_maps)
    neck = Neck(backbone.channels, config.neck)
    decoder = build_decoder({name: neck.channels[name] for name in decoder_maps}, config.decoder)
    f4 = neck.channels["F4"]
    if config.head.name == "queries":
        heatmap_head: nn.Module = QueryHead(decoder.out_channels, f4, schema, config.head)
    else:
        heatmap_head = HeatmapHead(decoder.out_channels, schema.num_channels)
    classes = config.classification
    network = VertebraNetwork(
        backbone,
        neck,
        decoder,
        heatmap_head,
        PresenceHead(f4, schema.num_levels, config.presence_dropout),
        ClassificationHead(f4, schema, classes) if classes is not None else None,
        output_stride=config.decoder.output_stride,
    )
    for part in (backbone.projections, decoder, heatmap_head, network.presence_head, network.classification_head):
        if part is not None:
            initialise(part, config.initialisation)
    return network
