"""Write a trained network to one small file, weights of 8 bits, for --weights of predict.py and evaluate.py."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vertebra_kp.cli.command_line import add_set_argument, exit_code
from vertebra_kp.config.schema import Config
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.provenance import code_version
from vertebra_kp.evaluation.runner import as_measured
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.weights import SUFFIX, Look, save_weights


def look(path: Path, overrides: Sequence[str]) -> Look:
    checkpoint = load_checkpoint(path)
    config = as_measured(Config.model_validate(checkpoint.config, strict=False), overrides).model_dump(mode="json")
    config["data"] |= {"root": None, "cache": None, "shards": None}  # where films lay on this machine
    config["train"] |= {"start_from": None}
    return Look(config, checkpoint.weights, checkpoint.step)


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    parser.add_argument(
        "--refine", type=Path, metavar="CHECKPOINT", help="of a network of vertebrae that goes with it"
    )
    add_set_argument(parser, "decoding and inference of the first network, such as inference.chain=true")
    parser.add_argument("--about", default="", help="a line on the data and its terms, kept in the file")
    parser.add_argument("--out", type=Path, required=True, help=f"file to write, NAME{SUFFIX}")
    arguments = parser.parse_args()
    if arguments.out.suffix != SUFFIX:
        raise UserError(f"--out {arguments.out}: must end in {SUFFIX}")
    looks = [look(arguments.checkpoint, arguments.overrides)]
    if arguments.refine:
        looks.append(look(arguments.refine, []))
    about = {"about": arguments.about, "version": code_version()}
    digest = save_weights(looks, arguments.out, about)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MiB, SHA-256 {digest}")


if __name__ == "__main__":
    sys.exit(exit_code(run))
