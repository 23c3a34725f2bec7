"""The README's table of networks: parameters, multiply-accumulates and CPU time now, error from the study's rows.

python benchmarks/network_table.py [--study experiments/08_networks] [--size 512 192] [--rounds 5]

The study must have been run before: vertebra-kp ablate experiments/08_networks.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from vertebra_kp.config.network import NetworkConfig
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.experiments.ledger import Ledger
from vertebra_kp.experiments.study import read_study
from vertebra_kp.models.describe import count_macs, count_parameters
from vertebra_kp.models.device import hardware
from vertebra_kp.models.network import VertebraNetwork

STUDY = Path(__file__).parents[1] / "experiments" / "08_networks"
DEVICE = torch.device("cpu")


def cost(config: NetworkConfig, schema: Schema, size: tuple[int, int]) -> tuple[float, float]:
    """Millions of parameters, and G multiply-accumulates of one film of ``size``."""
    with torch.device("meta"):
        network = VertebraNetwork(config, schema, load_weights=False)
    return count_parameters(network) / 1e6, count_macs(network, size) / 1e9


@torch.inference_mode()
def forward_ms(network: VertebraNetwork, film: torch.Tensor) -> float:
    started = time.perf_counter()
    network(film)
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--study", type=Path, default=STUDY, help="folder of the study whose variants are the rows"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(512, 192), help="height and width for cost and time")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    errors = {entry.key: float(entry.row["mre_px"]) for entry in Ledger(study.folder).entries()}
    first = {run.variant: run for run in study.planned if run.seed == study.file.seeds[0]}
    configs = {name: run.settings.config for name, run in first.items()}
    film = torch.rand(1, 1, *arguments.size).to(memory_format=torch.channels_last)
    milliseconds: dict[str, list[float]] = {name: [] for name in configs}
    for name, config in configs.items():
        network = VertebraNetwork(config.network, config.data.keypoint_schema, load_weights=False).eval()
        network = network.to(memory_format=torch.channels_last)
        forward_ms(network, film)  # the first call sets up
        milliseconds[name] = [forward_ms(network, film) for _ in range(arguments.rounds)]
    height, width = arguments.size
    own = next(iter(configs.values())).data.input_size
    print(f"| network | parameters, M | GMACs | CPU, ms | mean error on the phantom, px |\n|{'---|' * 5}")
    for name, config in configs.items():
        parameters, macs = cost(config.network, config.data.keypoint_schema, (height, width))
        found = [error for (variant, _), error in errors.items() if variant == name]
        error = f"{statistics.mean(found):.2f}" if found else "–"
        print(
            f"| {name} | {parameters:.1f} | {macs:.1f} | {statistics.median(milliseconds[name]):.0f} | {error} |"
        )
    about = hardware(DEVICE)
    print(
        f"\nCost and time of one film of {height} x {width}, float32, median of {arguments.rounds}, on "
        f"{about['name']}, {about['threads']} threads, torch {about['torch']}. Error after "
        f"the steps of {study.folder.name} ({own[0]} x {own[1]}, preset hard, {len(study.file.seeds)} seed)."
    )


if __name__ == "__main__":
    main()
