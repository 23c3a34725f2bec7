"""Train the network that a config describes; everything it writes stands in one run folder."""

import argparse
import logging
import sys
from pathlib import Path

from vertebra_kp.cli.command_line import add_set_argument
from vertebra_kp.config.io import load_config
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.describe import describe
from vertebra_kp.training.distributed import process_group
from vertebra_kp.training.loop import EXIT_INTERRUPTED, Interrupted, train


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Exit codes: 0 done, 1 an error told in one line, {EXIT_INTERRUPTED} stopped by SIGTERM or "
        "Ctrl-C after writing a checkpoint (continue with --resume).",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the job")
    add_set_argument(parser)
    parser.add_argument("--run-dir", type=Path, help="default: runs/NAME")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--describe", action="store_true", help="print the network and its cost, then stop")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue the run in the folder")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.describe:
            print(describe(config))
            return 0
        path = arguments.run_dir or Path("runs") / config.name
        with process_group(arguments.device) as group:
            report = train(config, path, group, resume=arguments.resume, overwrite=arguments.overwrite)
            if group.is_main:
                figures = report["validation"]
                print(
                    f"{path}: mean radial error {figures['mre_px']:.3f} px, median {figures['median_px']:.3f} px "
                    f"on {figures['films']} validation films, {report['training_seconds'] / 60:.1f} minutes"
                )
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return EXIT_INTERRUPTED
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
