"""EfficientNetV2-S as five feature maps: F1, F2, F3, S16, F4 at strides 2, 4, 8, 16, 32.

Tan and Le, ICML 2021; torchvision's layers, classifier and last 1x1 convolution left out.
Stage 5 has stride 1 and stage 6 strides: the map at 1/16 is stage 5's output.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import EfficientNet_V2_S_Weights, efficientnet_v2_s

from vertebra_kp.errors import UserError

FEATURE_NAMES = ("F1", "F2", "F3", "S16", "F4")


class WeightsError(UserError):
    """Weights that were asked for cannot be had; the message says what to do instead."""


class EfficientNetV2S(nn.Module):
    """Publishes ``channels`` and ``strides`` of its maps, finest first; can freeze its first stages.

    ``blocks`` are the stem and stages 1..6. ``frozen_stages`` 0 freezes nothing, n the stem and the first
    n stages: they run in eval mode and build no graph, so they cost no backward time and no activations.
    """

    tapped_stages = (1, 2, 3, 5, 6)
    strides = (2, 4, 8, 16, 32)

    def __init__(self, stochastic_depth: float = 0.1, projection: dict[str, int] | None = None) -> None:
        """``projection`` maps names of maps to the channels that a 1x1 convolution gives them."""
        super().__init__()
        features = efficientnet_v2_s(weights=None, stochastic_depth_prob=stochastic_depth).features
        self.blocks = nn.ModuleList(features[:7])
        channels = dict(zip(FEATURE_NAMES, (24, 48, 64, 160, 256), strict=True))
        projection = projection or {}
        self.projections = nn.ModuleDict(
            {name: nn.Conv2d(channels[name], width, 1) for name, width in projection.items()}
        )
        self.channels = tuple((channels | projection).values())
        self.frozen_stages = 0

    @property
    def num_frozen_blocks(self) -> int:
        return self.frozen_stages + 1 if self.frozen_stages else 0

    def freeze(self, stages: int) -> None:
        """Freeze the stem and the first ``stages`` stages, and nothing else."""
        self.frozen_stages = stages
        for i, block in enumerate(self.blocks):
            block.requires_grad_(i >= self.num_frozen_blocks)
        self.train(self.training)

    def train(self, mode: bool = True) -> "EfficientNetV2S":
        super().train(mode)
        for block in self.blocks[: self.num_frozen_blocks]:
            block.eval()  # as a whole: BatchNorm and stochastic depth stand still too
        return self

    def forward(self, film: Tensor) -> list[Tensor]:
        """Film ``[B, 3, H, W]`` to the five maps, finest first."""
        features = []
        x = film
        for stage, block in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and stage >= self.num_frozen_blocks):
                x = block(x)
            if stage in self.tapped_stages:
                features.append(x)
        for i, name in enumerate(FEATURE_NAMES):
            if name in self.projections:
                features[i] = self.projections[name](features[i])
        return features

    def load_weights(self, weights: str | Path) -> None:
        """Load torchvision's state dict: ``imagenet`` fetches it, a path reads it.

        Raises:
            WeightsError: the weights cannot be fetched, read, or are of another network.
        """
        if weights == "imagenet":
            try:
                state = EfficientNet_V2_S_Weights.IMAGENET1K_V1.get_state_dict(progress=False)
            except Exception as error:
                raise WeightsError(
                    f"network.backbone.weights: ImageNet weights cannot be fetched ({error}); "
                    "give a local file of torchvision's efficientnet_v2_s state dict "
                    "(--set network.backbone.weights=FILE), or train from random weights "
                    "(--set network.backbone.weights=none)"
                ) from error
        else:
            try:
                state = dict(torch.load(weights, map_location="cpu", weights_only=True))
            except Exception as error:
                raise WeightsError(
                    f"network.backbone.weights: cannot read {weights}: {error}; "
                    "give a state dict of torchvision's efficientnet_v2_s, saved with torch.save"
                ) from error
        own = self.blocks.state_dict()
        given = {key.removeprefix("features."): value for key, value in state.items()}
        wrong = [key for key, value in own.items() if key not in given or given[key].shape != value.shape]
        if wrong:
            raise WeightsError(
                f"network.backbone.weights: {weights} lacks {len(wrong)} of {len(own)} tensors of "
                f"efficientnet_v2_s, the first is features.{wrong[0]}; give a state dict of that network"
            )
        self.blocks.load_state_dict({key: given[key] for key in own})
