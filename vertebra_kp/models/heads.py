"""What is read off the features: a heatmap per corner, whether each vertebra is there, what the film shows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.network import ClassificationConfig
from vertebra_kp.core.anatomy import SLIP_CLASSES, VIEWS, Schema


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
    """Encoded F4 ``[B, C, h, w]`` to logits by target: ``view`` ``[B, 2]``, ``slip`` ``[B, L, 5]``."""

    def __init__(self, in_channels: int, schema: Schema, config: ClassificationConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        width = config.hidden or in_channels
        hidden = [nn.Linear(in_channels, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        self.hidden = nn.Sequential(*hidden) if config.hidden else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.shapes = {"view": (len(VIEWS),), "slip": (schema.num_levels, len(SLIP_CLASSES))}
        self.linears = nn.ModuleDict(
            {target: nn.Linear(width, torch.Size(self.shapes[target]).numel()) for target in config.targets}
        )

    def forward(self, encoded: Tensor) -> dict[str, Tensor]:
        pooled = F.adaptive_max_pool2d(encoded, 1) if self.pooling == "max" else F.adaptive_avg_pool2d(encoded, 1)
        x = self.dropout(self.hidden(pooled.flatten(1)))
        return {target: linear(x).unflatten(1, self.shapes[target]) for target, linear in self.linears.items()}
