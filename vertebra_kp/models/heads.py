"""What is read off the features: a heatmap per corner, whether each vertebra is there, what the film shows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.network import ClassificationConfig
from vertebra_kp.core.anatomy import SLIP_CLASSES, VIEWS, Schema
from vertebra_kp.models.library import BackboneError


class HeatmapHead(nn.Module):
    """Decoded features ``[B, C, H, W]`` to logits ``[B, K, H, W]``, channel = (level, corner)."""

    def __init__(self, in_channels: int, num_corners: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_corners, 1)

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        with without_autocast(decoded):
            return self.conv(decoded.float())


def without_autocast(x: Tensor) -> torch.autocast:
    """Float32 under mixed precision too: bf16 logits are coarse enough to move a sub-pixel peak."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)  # autocast knows no meta device


class PresenceHead(nn.Module):
    """Encoded F4 ``[B, C, h, w]`` to a logit per vertebra ``[B, L]``."""

    def __init__(self, in_channels: int, num_levels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels, num_levels)

    def forward(self, encoded: Tensor) -> Tensor:
        return self.linear(self.dropout(encoded.mean(dim=(-2, -1))))


class ClassificationHead(nn.Module):
    """Maps ``[B, C, h, w]`` by name, pooled and side by side, to logits by target.

    ``view`` ``[B, 2]``, ``slip`` ``[B, L, 5]``, ``image_class`` ``[B, classes]``.
    """

    def __init__(self, channels: dict[str, int], schema: Schema, config: ClassificationConfig) -> None:
        """``channels`` of the maps that there are. Raises BackboneError for one that is not among them."""
        super().__init__()
        if missing := [name for name in config.maps if name not in channels]:
            raise BackboneError(
                f"network.classification.maps: there is no map {missing[0]}, only {', '.join(channels)} (see "
                "decoder.skips, output_stride and the backbone; P1 to P7 are those of the decoder fpn)"
            )
        self.maps, self.pooling = tuple(config.maps), config.pooling
        in_channels = sum(channels[name] for name in config.maps)
        width = config.hidden or in_channels
        hidden = [nn.Linear(in_channels, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.hidden = nn.Sequential(*hidden) if config.hidden else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.shapes = {
            "view": (len(VIEWS),),
            "slip": (schema.num_levels, len(SLIP_CLASSES)),
            "image_class": (len(config.classes),),
        }
        self.linears = nn.ModuleDict(
            {target: nn.Linear(width, torch.Size(self.shapes[target]).numel()) for target in config.targets}
        )

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        pool = F.adaptive_max_pool2d if self.pooling == "max" else F.adaptive_avg_pool2d
        pooled = torch.cat([pool(maps[name], 1).flatten(1) for name in self.maps], dim=1)
        x = self.dropout(self.hidden(self.input_dropout(pooled)))
        return {target: linear(x).unflatten(1, self.shapes[target]) for target, linear in self.linears.items()}
