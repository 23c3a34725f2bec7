"""The spine network: every vertebra of an image, whichever it is, and what speaks for its name.

It has no channel per vertebra. One map marks centres, four mark corners by type; at each centre further maps say
where that vertebra's corners lie, how large and how turned it is, and which level it looks like (centre points
with offsets: Zhou et al., "Objects as points", 2019). The same weights find the spine on a whole radiograph (the
finder) and place corners on a crop in which vertebrae have a constant size (the corner network).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra_kp.config.network import NetworkConfig, size_fault
from vertebra_kp.core.anatomy import CORNERS, LEVELS, VIEWS
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.decoders import build_decoder, conv_norm_act, maps_for
from vertebra_kp.models.heads import without_autocast
from vertebra_kp.models.initialise import initialise
from vertebra_kp.models.necks import Neck

POINTS = ("centre", *CORNERS)
RARE = 0.01  # share of cells with a point at the start: keeps the first steps of the focal loss calm


@dataclass(frozen=True)
class SpineOutput:
    """Maps ``[B, *, h, w]`` at the decoder's stride.

    ``points`` 5 logits of ``POINTS``; ``offsets`` 8, from a cell to TL, TR, BL, BR of the vertebra there, x and y
    in steps; ``log_step`` 1, the natural log of the distance of neighbouring centres in px over ``USUAL_STEP``;
    ``down`` 2, a vector towards the foot; ``levels`` logits of ``LEVELS``. ``view`` ``[B, 2]``: logits of
    ``VIEWS``.
    """

    points: Tensor
    offsets: Tensor
    log_step: Tensor
    down: Tensor
    levels: Tensor
    view: Tensor


class SpineNetwork(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig, *, load_weights: bool = True) -> None:
        """With the backbone's weights loaded when the config names some; raises as ``VertebraNetwork``."""
        super().__init__()
        self.backbone = Backbone(config.backbone, load_weights=load_weights)
        maps = maps_for(config.decoder, self.backbone.channels)
        self.backbone.return_only(maps)
        self.neck = Neck(self.backbone.channels, config.neck)
        channels = self.neck.channels
        self.decoder = build_decoder({name: channels[name] for name in maps}, config.decoder)
        width = self.decoder.out_channels
        self.output_stride = config.decoder.output_stride
        self.point_head = nn.Conv2d(width, len(POINTS), 1)
        self.shape_head = nn.Sequential(conv_norm_act(width, width), nn.Conv2d(width, 2 * len(CORNERS) + 3, 1))
        self.level_head = nn.Sequential(conv_norm_act(width, width), nn.Conv2d(width, len(LEVELS), 1))
        self.view_head = nn.Linear(channels["F4"], len(VIEWS))
        mean, std = self.backbone.input_statistics
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        for part in (self.decoder, self.point_head, self.shape_head, self.level_head, self.view_head):
            initialise(part, config.initialisation)
        nn.init.constant_(self.point_head.bias, -math.log(1 / RARE - 1))  # type: ignore[arg-type]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts of this network, by name."""
        return dict(self.named_children())

    def forward(self, image: Tensor) -> SpineOutput:
        """Grey image ``[B, 1, H, W]`` in 0..1, H and W divisible by 32. ValueError for other sizes."""
        _, _, H, W = image.shape
        if fault := size_fault((H, W)):
            raise ValueError(fault)
        features = self.backbone((image - self.mean) / self.std)
        encoded, _ = self.neck(features)
        decoded, _ = self.decoder(encoded)
        with without_autocast(decoded):
            decoded = decoded.float()
            points, levels = self.point_head(decoded), self.level_head(decoded)
            offsets, log_step, down = self.shape_head(decoded).split([2 * len(CORNERS), 1, 2], dim=1)
            view = self.view_head(F.adaptive_avg_pool2d(encoded["F4"].float(), 1).flatten(1))
        return SpineOutput(points, offsets, log_step, down, levels, view)
