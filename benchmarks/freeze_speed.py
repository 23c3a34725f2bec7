"""What a frozen backbone saves: seconds of a training step, all trained against n stages frozen, in one run.

python benchmarks/freeze_speed.py [--device cuda]
"""

import argparse
import statistics
import time

import torch

from vertebra_kp.config.network import NetworkConfig
from vertebra_kp.config.schema import LossConfig, PhaseConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.device import hardware
from vertebra_kp.models.losses import KeypointLoss, Targets
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.precision import autocast
from vertebra_kp.training.schedule import parameter_groups

STRIDE, SIGMA = 4, 1.5


def step_seconds(network: VertebraNetwork, image: torch.Tensor, targets: Targets, phase: PhaseConfig) -> float:
    """One forward, backward and optimiser step."""
    device = image.device
    loss = KeypointLoss(HeatmapCodec(STRIDE, SIGMA), LossConfig())
    optimiser = torch.optim.AdamW(parameter_groups(network, phase, 0.01))
    started = time.perf_counter()
    with autocast("auto", device):
        output = network(image)
    loss(output.heatmap_logits, output.presence_logits, targets, targets.counts())["total"].backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 192))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    schema, device = SCHEMAS["ap_whole_spine"], torch.device(arguments.device)
    torch.manual_seed(0)
    config = NetworkConfig.model_validate({"decoder": {"output_stride": STRIDE}})
    network = VertebraNetwork(config, schema).to(device, memory_format=torch.channels_last).train()
    B, K = arguments.batch_size, schema.num_channels
    image = torch.rand(B, 1, *arguments.size, device=device)
    points = torch.rand(B, K, 2, device=device) * torch.tensor(arguments.size[::-1], device=device)
    targets = Targets(points, torch.ones(B, K, device=device), torch.ones(B, schema.num_levels, device=device))
    phases = {n: PhaseConfig(name=f"frozen_{n}", epochs=1, freeze_stages=n) for n in (0, 2, 4, 6)}
    seconds: dict[int, list[float]] = {n: [] for n in phases}
    for round_ in range(arguments.rounds + 1):
        for n, phase in phases.items():  # in turn, so that a slow minute slows all of them
            network.freeze(phase.freeze_stages, phase.freeze)
            taken = step_seconds(network, image, targets, phase)
            if round_:  # the first is a warm-up
                seconds[n].append(taken)
    print(f"{hardware(device)}, batch {B}, {arguments.size[0]} x {arguments.size[1]}")
    print("| frozen stages | seconds a step (median) | time against none frozen (median of pairs) |")
    print("|---|---|---|")
    for n, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(taken, seconds[0], strict=True))
        print(f"| {n} | {statistics.median(taken):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
