"""Losses on heatmaps, presence, coordinates and classes; sums over what is labelled, divided by a given count.

Cross-entropy of the spatial softmax (default): integral pose regression's cousin with a Gaussian as label.
Adaptive wing: Wang et al., ICCV 2019. All are computed in float32, whatever precision the network runs in.
The count is that of the whole global batch, so accumulation and several processes give the loss of one.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from vertebra_kp.config.schema import HeatmapLoss, LossConfig
from vertebra_kp.core.anatomy import UNKNOWN, State
from vertebra_kp.models.codec import HeatmapCodec

# Weighted MSE: the peak's cells are a few in thousands; without weight the empty map is a good answer.
MSE_FOREGROUND_WEIGHT = 50.0
# Adaptive wing: the values of Wang et al., section 4.
AWING_ALPHA, AWING_OMEGA, AWING_EPSILON, AWING_THETA, AWING_WEIGHT = 2.1, 14.0, 1.0, 0.5, 10.0


def to_heatmaps(logits: Tensor, loss: HeatmapLoss) -> Tensor:
    """Maps ``[B, K, H, W]`` float32, not negative: probabilities for cross-entropy, else Gaussians of peak 1."""
    logits = logits.float()
    if loss == "cross_entropy":
        return logits.flatten(-2).softmax(dim=-1).view_as(logits)
    return logits.clamp_min(0)


@dataclass(frozen=True)
class Targets:
    """Labels of a batch in the network's frame.

    ``points_xy`` [B, K, 2] input px (anything where not labelled), ``states`` [B, K] of ``State``,
    ``presence`` [B, L] 1 / 0 / nan; ``classes`` by target, ``view`` [B], ``slip`` [B, L] and ``image_class``
    [B] int64, UNKNOWN where nobody told.
    """

    points_xy: Tensor
    states: Tensor
    presence: Tensor
    classes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def labelled(self) -> Tensor:
        return self.states == State.LABELLED

    def counts(self) -> Tensor:
        """Labelled corners, known presences, known classes by target, float64: what the losses are divided by."""
        known = [(target != UNKNOWN).sum() for target in self.classes.values()]
        return torch.stack([self.labelled.sum(), self.presence.isfinite().sum(), *known]).double()


@dataclass(frozen=True)
class KeypointLoss:
    codec: HeatmapCodec
    config: LossConfig

    def __call__(
        self,
        logits: Tensor,
        presence_logits: Tensor,
        targets: Targets,
        counts: Tensor,
        class_logits: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Terms and their weighted sum ``total``; ``counts`` as ``Targets.counts`` over the global batch.

        ``class_logits`` by target, ``[..., classes]`` for targets ``[...]``; each has a term of its name.
        """
        corners, presences, *known_classes = counts.clamp_min(1).float()
        labelled = targets.labelled
        terms = {"heatmap": (self._per_corner(logits, targets.points_xy) * labelled).sum() / corners}
        total = terms["heatmap"]
        if self.config.coordinate_weight:
            terms["coordinate"] = self._coordinate(logits, targets) / corners
            total = total + self.config.coordinate_weight * terms["coordinate"]
        # Computed at weight 0 too: every trainable parameter gets a gradient, as DistributedDataParallel asks.
        known = targets.presence.isfinite()
        bce = F.binary_cross_entropy_with_logits(
            presence_logits.float(), torch.nan_to_num(targets.presence), reduction="none"
        )
        terms["presence"] = (bce * known).sum() / presences
        total = total + self.config.presence_weight * terms["presence"]
        count_of = dict(zip(targets.classes, known_classes, strict=True))
        for name, of_classes in (class_logits or {}).items():
            free = name == "image_class"
            weights = self.config.class_weights if free else None
            entropy = F.cross_entropy(
                of_classes.float().flatten(0, -2),
                targets.classes[name].flatten(),
                weight=None if weights is None else of_classes.new_tensor(weights, dtype=torch.float32),
                ignore_index=UNKNOWN,
                reduction="sum",
                label_smoothing=self.config.label_smoothing,
            )
            terms[name] = entropy / count_of[name]
            weight = self.config.image_class_weight if free else self.config.classification_weight
            total = total + weight * terms[name]
        return {**terms, "total": total}

    def _per_corner(self, logits: Tensor, points_xy: Tensor) -> Tensor:
        """Heatmap loss of every corner, ``[B, K]``; the caller masks it."""
        logits = logits.float()
        _, _, H, W = logits.shape
        target = self.codec.encode(points_xy, (H, W))
        if self.config.heatmap == "cross_entropy":
            target = target / target.sum(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
            log_p = logits.flatten(-2).log_softmax(dim=-1)
            # The target's own entropy is subtracted: a perfect map costs 0, whatever sigma is.
            entropy = -torch.xlogy(target, target).sum(dim=(-2, -1))
            return -(target.flatten(-2) * log_p).sum(dim=-1) - entropy
        if self.config.heatmap == "mse":
            weight = 1 + MSE_FOREGROUND_WEIGHT * target
            return (weight * (logits - target) ** 2).mean(dim=(-2, -1))
        return adaptive_wing(logits, target).mean(dim=(-2, -1))

    def _coordinate(self, logits: Tensor, targets: Targets) -> Tensor:
        """Smooth L1 between the local mean and the corner, in heatmap cells, summed over labelled corners."""
        labelled = targets.labelled
        points = torch.where(labelled[..., None], targets.points_xy, torch.zeros_like(targets.points_xy))
        mean = self.codec.local_mean(to_heatmaps(logits, self.config.heatmap), points)
        error = F.smooth_l1_loss(mean / self.codec.stride, points / self.codec.stride, reduction="none")
        return (error.sum(dim=-1) * labelled).sum()


def adaptive_wing(prediction: Tensor, target: Tensor) -> Tensor:
    """Per cell: logarithmic near the target, linear far from it, steeper where the target is high."""
    power = AWING_ALPHA - target
    ratio = AWING_THETA / AWING_EPSILON
    slope = AWING_OMEGA * power * ratio ** (power - 1) / (1 + ratio**power) / AWING_EPSILON
    offset = AWING_THETA * slope - AWING_OMEGA * torch.log1p(torch.as_tensor(ratio) ** power)
    error = (prediction - target).abs()
    near = AWING_OMEGA * torch.log1p((error / AWING_EPSILON) ** power)
    loss = torch.where(error < AWING_THETA, near, slope * error - offset)
    return loss * (1 + AWING_WEIGHT * (target > 0.2))
