"""Several trained networks as one: their probabilities averaged, so that where they disagree a peak grows wide."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vertebra_kp.config.schema import HeatmapLoss
from vertebra_kp.models.losses import to_heatmaps
from vertebra_kp.models.network import Output, VertebraNetwork


class Ensemble(nn.Module):
    """Looks like one network, in eval mode; members have the same maps and classes, attention is the first's."""

    def __init__(self, members: Sequence[VertebraNetwork], loss: HeatmapLoss) -> None:
        super().__init__()
        self.members, self.loss = nn.ModuleList(members), loss

    def forward(self, film: Tensor, return_attention: bool = False) -> Output:
        """As ``VertebraNetwork.forward``; logits are those of the averaged probabilities."""
        outputs = [member(film, return_attention) for member in self.members]
        maps = torch.stack([to_heatmaps(output.heatmap_logits, self.loss) for output in outputs]).mean(0)
        presence = torch.stack([output.presence_logits.float().sigmoid() for output in outputs]).mean(0)
        classes = {
            target: torch.stack([o.class_logits[target].float().softmax(-1) for o in outputs]).mean(0).log()
            for target in outputs[0].class_logits
        }
        # A softmax of logarithms gives the averaged probabilities back.
        logits = maps.clamp_min(torch.finfo(maps.dtype).tiny).log() if self.loss == "cross_entropy" else maps
        return Output(logits, presence.logit(), classes, outputs[0].attention)
