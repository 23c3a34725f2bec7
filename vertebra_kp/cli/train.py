"""The command train: a config, a run folder, and the figure at the end."""

import argparse
import shutil
import sys
from pathlib import Path

import torch

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.io import find_config, load_job
from vertebra_kp.config.spine import SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import INTERRUPTED
from vertebra_kp.data.spine_sources import films_of_sources
from vertebra_kp.models.describe import describe
from vertebra_kp.models.device import choose_device
from vertebra_kp.training.distributed import process_group
from vertebra_kp.training.loop import Interrupted, train
from vertebra_kp.training.spine_loop import BOARD, LAST, METRICS, train_spine


def run(arguments: argparse.Namespace) -> int | None:
    config = load_job(find_config(arguments.config), arguments.overrides)
    if isinstance(config, SpineConfig):
        _train_spine(config, arguments)
        return None
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


def _train_spine(config: SpineConfig, arguments: argparse.Namespace) -> None:
    if arguments.describe:
        raise UsageError("--describe knows networks with a channel for every corner, not the spine network")
    folder = arguments.run_dir or Path("runs") / config.name
    last = folder / LAST
    if last.exists() and not (arguments.resume or arguments.overwrite):
        raise UserError(f"{folder} holds a run; --resume goes on with it, --overwrite replaces it")
    if arguments.overwrite:
        for old in (last, folder / METRICS):
            old.unlink(missing_ok=True)
        shutil.rmtree(folder / BOARD, ignore_errors=True)
    training, _ = films_of_sources(config)
    train_spine(config, training, folder, torch.device(choose_device(arguments.device)))
    print(f"{last}: {config.train.steps} steps on {len(training)} images")
