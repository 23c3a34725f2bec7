"""Keypoint queries: one learned vector per corner looks for its corner in F4, then everywhere in the decoded map.

After DETR (Carion et al., ECCV 2020) and MaskFormer (Cheng et al., NeurIPS 2021), whose masks are dot products of
queries and pixels too; here every query is bound to a level and a corner, so nothing has to be matched.
"""

import math

import torch
from torch import Tensor, nn

from vertebra_kp.config.network import HeadConfig
from vertebra_kp.core.anatomy import CORNERS, Schema
from vertebra_kp.models.heads import without_autocast
from vertebra_kp.models.necks import sincos_positions

MLP_RATIO = 4


class QueryRound(nn.Module):
    """Queries see each other (if so built), then the film, then an MLP; pre-norm, as the neck."""

    def __init__(self, width: int, heads: int, self_attention: bool) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width) if self_attention else None
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True) if self_attention else None
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, MLP_RATIO * width),
            nn.GELU(),
            nn.Linear(MLP_RATIO * width, width),
        )

    def forward(self, queries: Tensor, memory: Tensor, places: Tensor) -> Tensor:
        """Queries ``[B, K, C]``, the film's cells ``[B, N, C]`` and their positions to refined queries."""
        if self.self_norm is not None and self.self_attention is not None:
            x = self.self_norm(queries)
            queries = queries + self.self_attention(x, x, x, need_weights=False)[0]
        x = self.cross_norm(queries)
        queries = queries + self.cross_attention(x, memory + places, memory, need_weights=False)[0]
        return queries + self.mlp(queries)


class QueryHead(nn.Module):
    """K queries, each a level's embedding plus a corner's, to K heatmaps."""

    def __init__(self, decoded_channels: int, encoded_channels: int, schema: Schema, config: HeadConfig) -> None:
        super().__init__()
        width = config.width
        levels, corners = torch.tensor(schema.channels).T
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("corners", corners, persistent=False)
        self.level_embedding = nn.Embedding(schema.num_levels, width)
        self.corner_embedding = nn.Embedding(len(CORNERS), width)
        self.project = nn.Conv2d(encoded_channels, width, 1)
        self.rounds = nn.ModuleList(
            QueryRound(width, config.heads, config.self_attention) for _ in range(config.rounds)
        )
        self.norm = nn.LayerNorm(width)
        self.to_decoded = nn.Linear(width, decoded_channels)
        self.bias = nn.Parameter(torch.zeros(schema.num_channels))

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        """Decoded features ``[B, C, H, W]`` and encoded F4 to logits ``[B, K, H, W]``."""
        B, _, h, w = encoded.shape
        memory = self.project(encoded).flatten(2).transpose(1, 2)
        places = sincos_positions(memory.shape[-1], h, w, encoded.device).flatten(2).transpose(1, 2)
        queries = self.level_embedding(self.levels) + self.corner_embedding(self.corners)
        queries = queries.expand(B, -1, -1)
        for refine in self.rounds:
            queries = refine(queries, memory, places.to(memory.dtype))
        wanted = self.to_decoded(self.norm(queries))
        with without_autocast(decoded):
            logits = torch.einsum("bkc,bchw->bkhw", wanted.float(), decoded.float())
            return logits / math.sqrt(decoded.shape[1]) + self.bias[:, None, None]
