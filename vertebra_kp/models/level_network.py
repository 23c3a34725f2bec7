"""The level network: which levels the vertebrae of a straightened spine are, from the anatomy around them.

A backbone reads the curved planar reformation; each vertebra's row becomes one token, and an encoder along the
spine lets first rib, last rib and sacrum speak for the names of all.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.spine import LevelConfig
from vertebra_kp.core.anatomy import LEVELS
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.heads import without_autocast
from vertebra_kp.models.necks import EncoderLayer, sincos_positions

DROPPED = 0.2  # of what is read from the map, in training
OUTSIDE = math.log(1e-4)  # log-probability of a vertebra that a path puts above C1 or below S1
SINGLE = 0.5  # weight of the loss of single vertebrae against that of the path


@dataclass(frozen=True)
class LevelTargets:
    """Of a batch: ``found`` ``[B, rows]`` bool, where a vertebra is; ``first`` ``[B]``, the place in ``LEVELS`` of
    the first row, which may lie above the first level.
    """

    found: Tensor
    first: Tensor

    def to(self, device: torch.device) -> "LevelTargets":
        return LevelTargets(self.found.to(device), self.first.to(device))


class LevelNetwork(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, config: LevelConfig, *, load_weights: bool = True) -> None:
        """With the backbone's weights loaded when the config names some; raises as ``VertebraNetwork``."""
        super().__init__()
        network, reformation = config.network, config.reformation
        self.step_px, width = reformation.step_px, network.encoder.width
        self.backbone = Backbone(network.backbone, load_weights=load_weights)
        self.backbone.return_only(["S16", "F4"])
        channels = self.backbone.channels
        self.fine = nn.Conv2d(channels["S16"], network.channels, 1)
        self.coarse = nn.Conv2d(channels["F4"], network.channels, 1)
        self.dropout = nn.Dropout(DROPPED)
        self.read = nn.Linear(network.channels * (reformation.size[1] // 16), width)
        self.found = nn.Embedding(2, width)
        self.neighbours = nn.Conv1d(width, width, 3, padding=1)
        encoder = network.encoder
        self.layers = nn.ModuleList(
            EncoderLayer(width, encoder.heads, encoder.mlp_ratio, encoder.dropout) for _ in range(encoder.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.level_head = nn.Linear(width, len(LEVELS))
        mean, std = self.backbone.input_statistics
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts of this network, by name."""
        return dict(self.named_children())

    def forward(self, image: Tensor, found: Tensor | None = None) -> Tensor:
        """Log-probabilities ``[B, rows, L]`` of ``LEVELS`` by rows of reformations ``[B, 1, H, W]`` in 0..1.

        ``found`` ``[B, rows]`` bool: which rows hold a vertebra; None: all.
        """
        if found is None:
            found = image.new_ones(len(image), image.shape[-2] // self.step_px, dtype=torch.bool)
        features = self.backbone((image - self.mean) / self.std)
        fine = self.fine(features["S16"])
        coarse = F.interpolate(self.coarse(features["F4"]), size=fine.shape[-2:], mode="bilinear")
        rows = found.shape[1]
        seen = F.interpolate(F.relu(fine + coarse).float(), size=(rows, fine.shape[-1]), mode="bilinear")
        with without_autocast(seen):
            tokens = self.read(self.dropout(seen.permute(0, 2, 1, 3).flatten(2)))
            tokens = tokens + self.found(found.long()) + self._positions(rows, tokens)
            tokens = tokens + F.gelu(self.neighbours(tokens.transpose(1, 2)).transpose(1, 2))
            for layer in self.layers:
                tokens, _ = layer(tokens)
            return self.level_head(self.norm(tokens)).log_softmax(dim=-1)

    @staticmethod
    def _positions(rows: int, tokens: Tensor) -> Tensor:
        return sincos_positions(tokens.shape[-1], rows, 1, tokens.device).squeeze(-1).transpose(1, 2)


def path_scores(log_probabilities: Tensor, found: Tensor) -> Tensor:
    """Mean evidence, times the root of the number of vertebrae, of each path ``[B, rows + L - 1]``.

    A path names the rows from its start on one after the other: place k has the first row at level k - rows + 1.
    Evidence ``[B, rows, L]`` of rows without a vertebra does not count. Neighbours look alike for the same
    reasons, so the sum counts by one over the root of their number (as in ``level_names``).
    """
    rows, places = log_probabilities.shape[1:]
    padded = F.pad(log_probabilities, (rows, rows), value=OUTSIDE)
    start = torch.arange(1 - rows, places, device=found.device)
    row = torch.arange(rows, device=found.device)
    along = padded[:, row, start[:, None] + row + rows]  # [B, starts, rows]
    return (along * found[:, None]).sum(dim=-1) / found.sum(dim=1, keepdim=True).clamp_min(1).sqrt()


def level_loss(log_probabilities: Tensor, targets: LevelTargets) -> dict[str, Tensor]:
    """Cross-entropy of the right path among all, and of each vertebra's level; with their weighted ``total``."""
    rows, places = log_probabilities.shape[1:]
    level = targets.first[:, None] + torch.arange(rows, device=targets.first.device)
    known = targets.found & (level >= 0) & (level < places)
    path = F.cross_entropy(path_scores(log_probabilities, targets.found), targets.first + rows - 1)
    single = F.nll_loss(log_probabilities[known], level[known])
    return {"path": path, "single": single, "total": path + SINGLE * single}
