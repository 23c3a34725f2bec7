"""The command train: a config, a run folder, and the figure at the end."""

import argparse
import sys
from pathlib import Path

from vertebra_kp.config.io import find_config, load_config
from vertebra_kp.core.exit_codes import INTERRUPTED
from vertebra_kp.models.describe import describe
from vertebra_kp.training.distributed import process_group
from vertebra_kp.training.loop import Interrupted, train


def run(arguments: argparse.Namespace) -> int | None:
    config = load_config(find_config(arguments.config), arguments.overrides)
    if arguments.describe:
        print(describe(config))
        return None
    path = arguments.run_dir or Path("runs") / config.name
    try:
        with process_group(arguments.device) as group:
            report = train(config, path, group, resume=arguments.resume, overwrite=arguments.overwrite)
    except Interrupted as stop:
        print(f"{stop}; --resume continues from there", file=sys.stderr)
        return INTERRUPTED
    if report is not None:  # the main process
        figures = report["validation"]
        print(
            f"{path}: mean radial error {figures['mre_px']:.3f} px, median {figures['median_px']:.3f} px "
            f"on {figures['films']} validation images, {report['training_seconds'] / 60:.1f} minutes"
        )
    return None
