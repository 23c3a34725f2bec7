"""Which network a command runs: the same arguments for every command that runs one."""

import argparse
from pathlib import Path

from vertebra_kp.inference.checkpoint import CheckpointError
from vertebra_kp.inference.predictor import Predictor, load
from vertebra_kp.inference.weights import find_weights, name_of, published


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--checkpoint", type=Path, help="best.pt or last.pt of a run")
    network.add_argument(
        "--weights",
        dest="checkpoint",
        type=weights_file,
        metavar="NAME_OR_FILE",
        help=f"that come with the package ({', '.join(published())}), or a file of scripts/export_weights.py",
    )
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


def weights_file(name_or_path: str) -> Path:
    try:
        return find_weights(name_or_path) or Path(name_or_path)
    except CheckpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def choose_network(arguments: argparse.Namespace) -> Predictor:
    """Raises CheckpointError for a file that cannot be used, or networks that do not go together."""
    return load(arguments.checkpoint, arguments.device, members=arguments.ensemble, refine=arguments.refine)


def about_network(arguments: argparse.Namespace) -> dict[str, object]:
    """What results say of the network that they come from."""
    return {
        "checkpoint": name_of(arguments.checkpoint),
        "ensemble": [str(path) for path in arguments.ensemble],
        "refine": None if arguments.refine is None else str(arguments.refine),
    }
