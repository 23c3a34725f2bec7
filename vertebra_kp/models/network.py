"""The whole network: backbone, transformer on F4, decoder with skips, heatmap, presence and class heads."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vertebra_kp.config.network import NetworkConfig, size_fault
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.backbones import Backbone, Stages
from vertebra_kp.models.decoders import build_decoder, maps_for
from vertebra_kp.models.heads import ClassificationHead, HeatmapHead, PresenceHead
from vertebra_kp.models.initialise import initialise
from vertebra_kp.models.necks import Neck
from vertebra_kp.models.queries import QueryHead

PARTS = ("backbone", "neck", "decoder", "heatmap_head", "presence_head", "classification_head")


@dataclass(frozen=True)
class Output:
    """``heatmap_logits`` [B, K, H/s, W/s]; ``presence_logits`` [B, L]; ``class_logits`` by target, ``view``
    [B, 2], ``slip`` [B, L, 5] and ``image_class`` [B, classes], empty without that head; ``attention`` by map, per
    layer [B, heads, N, N], if asked.
    """

    heatmap_logits: Tensor
    presence_logits: Tensor
    class_logits: dict[str, Tensor]
    attention: dict[str, list[Tensor]]


class VertebraNetwork(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig, schema: Schema, *, load_weights: bool = True) -> None:
        """With the backbone's weights loaded when the config names some.

        Without ``load_weights`` all are random: a checkpoint that follows brings its own. Raises BackboneError
        where the parts do not fit together, WeightsError where weights cannot be had.
        """
        super().__init__()
        self.backbone = Backbone(config.backbone, load_weights=load_weights)
        maps = maps_for(config.decoder, self.backbone.channels)
        self.backbone.return_only(maps)
        self.neck = Neck(self.backbone.channels, config.neck)
        channels, classes = self.neck.channels, config.classification
        self.decoder = build_decoder({name: channels[name] for name in maps}, config.decoder)
        self.heatmap_head: QueryHead | HeatmapHead
        if config.head.name == "queries":
            self.heatmap_head = QueryHead(self.decoder.out_channels, channels["F4"], schema, config.head)
        else:
            self.heatmap_head = HeatmapHead(self.decoder.out_channels, schema.num_channels)
        self.presence_head = PresenceHead(channels["F4"], schema.num_levels, config.presence_dropout)
        maps_there = channels | self.decoder.level_channels
        self.classification_head = ClassificationHead(maps_there, schema, classes) if classes else None
        self.output_stride = config.decoder.output_stride
        self.frozen_parts: frozenset[str] = frozenset()
        mean, std = self.backbone.input_statistics
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        _, _, *new_parts = self.parts.values()  # the neck keeps torch's own weights
        for part in (self.backbone.projections, *new_parts):
            initialise(part, config.initialisation)

    def forward(self, film: Tensor, return_attention: bool = False) -> Output:
        """Grey film ``[B, 1, H, W]`` in 0..1, H and W divisible by 32, to logits. ValueError for other sizes."""
        _, _, H, W = film.shape
        if fault := size_fault((H, W)):
            raise ValueError(fault)
        features = self.backbone(self.normalise(film))
        encoded, attention = self.neck(features, return_attention)
        decoded, levels = self.decoder(encoded)
        f4 = encoded["F4"]
        classes = self.classification_head(encoded | levels) if self.classification_head is not None else {}
        return Output(self.heatmap_head(decoded, f4), self.presence_head(f4), classes, attention)

    def normalise(self, film: Tensor) -> Tensor:
        """Grey film ``[B, 1, H, W]`` to the three equal, normalised channels that the backbone reads."""
        return (film - self.mean) / self.std

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that this network has, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def freeze(self, stages: Stages, parts: Collection[str] = (), *, layers: int = 0) -> None:
        """Freeze these stages and layers of the backbone and whole named parts, and unfreeze everything else.

        In a frozen part weights, BatchNorm statistics and dropout stand still. Raises UserError for other parts.
        """
        _, *others = self.parts
        if unknown := sorted(set(parts).difference(others)):
            raise UserError(
                f"freeze: {unknown[0]} is no part of the network beside its backbone; take of {', '.join(others)}"
            )
        self.requires_grad_(True)
        self.frozen_parts = frozenset(parts)
        for part in self.frozen_parts:
            getattr(self, part).requires_grad_(False)
        self.backbone.freeze(stages, layers=layers)
        self.train(self.training)

    def train(self, mode: bool = True) -> "VertebraNetwork":
        super().train(mode)
        for part in self.frozen_parts:
            getattr(self, part).eval()
        return self
