"""Losses of the spine network: what is labelled counts, what nobody marked is left alone.

Points: the focal loss of Zhou et al., "Objects as points", 2019 (after Law and Deng, ECCV 2018). All in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vertebra_kp.core.anatomy import UNKNOWN
from vertebra_kp.data.spine_views import SpineTargets
from vertebra_kp.models.spine_network import SpineOutput

HARD, NEAR = 2.0, 4.0  # powers: of what is already right, and of how near a cell lies to a point
WEIGHTS = {"points": 1.0, "offsets": 2.0, "step": 1.0, "down": 0.5, "levels": 1.0, "view": 0.2}


def spine_loss(output: SpineOutput, targets: SpineTargets, stride: int, usual_step: float) -> dict[str, Tensor]:
    """Each term, and their weighted ``total``."""
    terms = {"points": _focal(output.points, targets), "view": F.cross_entropy(output.view, targets.views)}
    image, row, column = torch.nonzero(targets.owner >= 0, as_tuple=True)
    vertebra = targets.owner[image, row, column]
    step = targets.steps[image, vertebra]
    cell = (torch.stack([column, row], dim=1) + 0.5) * stride
    offsets = (targets.corners[image, vertebra].view(-1, 4, 2) - cell[:, None]) / step[:, None, None]
    terms["offsets"] = _l1(output.offsets[image, :, row, column], offsets.flatten(1))
    terms["step"] = _l1(output.log_step[image, 0, row, column], (step / usual_step).log())
    terms["down"] = _l1(output.down[image, :, row, column], targets.down[image, vertebra])
    level = targets.levels[image, vertebra]
    entropy = F.cross_entropy(
        output.levels[image, :, row, column], level, ignore_index=UNKNOWN, reduction="sum", label_smoothing=0.05
    )
    terms["levels"] = entropy / (level != UNKNOWN).sum().clamp_min(1)
    total = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
    return {**terms, "total": total}


def _focal(logits: Tensor, targets: SpineTargets) -> Tensor:
    """Summed over cells, per marked point."""
    probability = logits.sigmoid()
    at_point = targets.points == 1
    hit = -F.logsigmoid(logits) * (1 - probability) ** HARD * at_point
    empty = -F.logsigmoid(-logits) * probability**HARD * (1 - targets.points) ** NEAR * ~at_point
    return ((hit + empty) * targets.known).sum() / (at_point * targets.known).sum().clamp_min(1)


def _l1(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference over what is known."""
    known = wanted.isfinite()
    return (found - wanted.nan_to_num()).abs().mul(known).sum() / known.sum().clamp_min(1)
