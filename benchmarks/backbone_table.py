"""Backbones side by side: accuracy that torchvision publishes, parameters and multiply-accumulates counted here.

Usage: python benchmarks/backbone_table.py
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, get_model_weights

from vertebra_kp.config.network import BackboneConfig
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.describe import count_parameters

# torchvision's first weights of each: of ResNet-50 the recipe that the literature uses.
CANDIDATES = {"efficientnet_v2_s": "IMAGENET1K_V1", "resnet50": "IMAGENET1K_V1", "convnext_small": "IMAGENET1K_V1"}
SIZE = (512, 512)


def gmacs(network: nn.Module, size: tuple[int, int]) -> float:
    """Of one image of three channels; nothing is computed on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, *size, device="meta"))
    return counter.get_total_flops() / 2e9


def main() -> None:
    print(
        "| backbone | top-1, published | at | parameters, M | without classifier, M | GMACs at 224 x 224 |", end=""
    )
    print(f" encoder's GMACs at {SIZE[0]} x {SIZE[1]} |\n|---|---|---|---|---|---|---|")
    for name, weights in CANDIDATES.items():
        published = get_model_weights(name)[weights]
        (top1,) = (accuracy["acc@1"] for accuracy in published.meta["_metrics"].values())
        crop = published.transforms().crop_size[0]
        with torch.device("meta"):
            whole, encoder = get_model(name, weights=None), Backbone(BackboneConfig(name=name))
        millions = [count_parameters(network) / 1e6 for network in (whole, encoder)]
        figures = [*millions, gmacs(whole, (224, 224)), gmacs(encoder, SIZE)]
        print(f"| {name} | {top1:.1f} % | {crop} x {crop} | {' | '.join(f'{value:.1f}' for value in figures)} |")


if __name__ == "__main__":
    main()
