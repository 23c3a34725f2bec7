"""What is read off the features: one heatmap per corner, and whether each vertebra is there."""

import torch
from torch import Tensor, nn


class HeatmapHead(nn.Module):
    """Decoded features ``[B, C, H, W]`` to logits ``[B, K, H, W]``, channel = (level, corner)."""

    def __init__(self, in_channels: int, num_corners: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_corners, 1)

    def forward(self, decoded: Tensor) -> Tensor:
        # In float32 under mixed precision too: bf16 logits are coarse enough to move a sub-pixel peak.
        device_type = "cpu" if decoded.is_meta else decoded.device.type  # autocast knows no meta device
        with torch.autocast(device_type, enabled=False):
            return self.conv(decoded.float())


class PresenceHead(nn.Module):
    """Encoded F4 ``[B, C, h, w]`` to a logit per vertebra ``[B, L]``."""

    def __init__(self, in_channels: int, num_levels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels, num_levels)

    def forward(self, encoded: Tensor) -> Tensor:
        return self.linear(self.dropout(encoded.mean(dim=(-2, -1))))
