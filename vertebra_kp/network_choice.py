"""Which network a command runs: the same arguments for every command that runs one."""

import argparse
from pathlib import Path

from vertebra_kp.predict import Predictor, load


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    parser.add_argument(
        "--ensemble", type=Path, nargs="+", default=[], help="checkpoints whose heatmaps are averaged with it"
    )
    parser.add_argument(
        "--refine",
        type=Path,
        metavar="CHECKPOINT",
        help="of a network trained on vertebrae (data.patch), which looks again at each one from close by",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")


def choose_network(arguments: argparse.Namespace) -> Predictor:
    """Raises CheckpointError for a file that cannot be used, or networks that do not go together."""
    return load(arguments.checkpoint, arguments.device, members=arguments.ensemble, refine=arguments.refine)


def about_network(arguments: argparse.Namespace) -> dict[str, object]:
    """What results say of the network that they come from."""
    return {
        "checkpoint": str(arguments.checkpoint),
        "ensemble": [str(path) for path in arguments.ensemble],
        "refine": None if arguments.refine is None else str(arguments.refine),
    }
