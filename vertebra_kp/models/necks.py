"""Transformer encoder on the deepest feature map, or on more: every position of the film sees every other.

Vaswani et al., NeurIPS 2017, in the pre-norm form; positions in 2-D.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.network import NeckConfig
from vertebra_kp.models.library import BackboneError

LEARNED_GRID = (16, 16)  # of a 512 x 512 film at stride 32; resized to other sizes
SINCOS_TEMPERATURE = 10_000.0  # Vaswani et al., section 3.5


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, return_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Tokens ``[B, N, C]`` to tokens, and the weights ``[B, heads, N, N]`` when asked for."""
        B, N, C = tokens.shape
        q, k, v = self.qkv(tokens).view(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        weights = None
        if return_weights:
            weights = ((q @ k.transpose(-2, -1)) / math.sqrt(C // self.heads)).softmax(dim=-1)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).reshape(B, N, C)), weights


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, return_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        mixed, weights = self.attention(self.attention_norm(tokens), return_weights)
        tokens = tokens + self.dropout(mixed)
        return tokens + self.dropout(self.mlp(self.mlp_norm(tokens))), weights


class TransformerEncoder(nn.Module):
    """1x1 projection of a map to ``width``, positions, ``depth`` layers, norm."""

    def __init__(self, in_channels: int, config: NeckConfig) -> None:
        super().__init__()
        width = config.width
        self.project = nn.Conv2d(in_channels, width, 1)
        self.positions = None
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.randn(1, width, *LEARNED_GRID) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, feature: Tensor, return_weights: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Map ``[B, C, h, w]`` to the encoded ``[B, width, h, w]``, and weights per layer if asked for."""
        x = self.project(feature)
        B, C, h, w = x.shape
        tokens = (x + self._position_map(C, h, w, x.device).to(x.dtype)).flatten(2).transpose(1, 2)
        all_weights = []
        for layer in self.layers:
            tokens, weights = layer(tokens, return_weights)
            if weights is not None:
                all_weights.append(weights)
        return self.norm(tokens).transpose(1, 2).reshape(B, C, h, w), all_weights

    def _position_map(self, channels: int, h: int, w: int, device: torch.device) -> Tensor:
        if self.positions is None:
            return sincos_positions(channels, h, w, device)
        return F.interpolate(self.positions, size=(h, w), mode="bicubic", align_corners=False)


class Neck(nn.Module):
    """An encoder of its own for every map that ``config.levels`` names; depth 0 has none and changes nothing."""

    def __init__(self, channels: dict[str, int], config: NeckConfig) -> None:
        """``channels`` of the backbone's maps by name. Raises BackboneError for a level that is not among them."""
        super().__init__()
        levels = config.levels if config.depth else []
        if missing := [name for name in levels if name not in channels]:
            raise BackboneError(
                f"network.neck.levels: {missing[0]} is none of the maps that the decoder reads, "
                f"{', '.join(channels)} (see decoder.skips, output_stride and the backbone); leave it out"
            )
        self.encoders = nn.ModuleDict({name: TransformerEncoder(channels[name], config) for name in levels})
        self.channels = channels | {name: config.width for name in levels}

    def forward(
        self, features: dict[str, Tensor], return_weights: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """Maps by name to maps by name, and per encoded map the weights ``[B, heads, N, N]`` of every layer."""
        encoded, attention = dict(features), {}
        for name, encoder in self.encoders.items():
            encoded[name], weights = encoder(features[name], return_weights)
            if return_weights:
                attention[name] = weights
        return encoded, attention


def sincos_positions(channels: int, h: int, w: int, device: torch.device) -> Tensor:
    """``[1, channels, h, w]``: a quarter each of sine and cosine of y and of x, at falling frequencies."""
    quarter = channels // 4
    frequency = SINCOS_TEMPERATURE ** (-torch.arange(quarter, device=device) / quarter)
    y = (torch.arange(h, device=device) + 0.5)[None, :, None] * frequency[:, None, None]
    x = (torch.arange(w, device=device) + 0.5)[None, None, :] * frequency[:, None, None]
    y, x = y.expand(-1, h, w), x.expand(-1, h, w)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()])[None]
