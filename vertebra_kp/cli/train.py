"""The command train: a config, a run folder, and the figure at the end."""

import argparse
import sys
from pathlib import Path

import torch

from vertebra_kp.config.io import find_config, load_job
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.exit_codes import INTERRUPTED
from vertebra_kp.data.spine_sources import training_films_of
from vertebra_kp.models.describe import describe
from vertebra_kp.models.device import choose_device
from vertebra_kp.training.distributed import process_group
from vertebra_kp.training.loop import Interrupted, train
from vertebra_kp.training.spine_loop import check_spine_folder, train_spine


def run(arguments: argparse.Namespace) -> int | None:
    config = load_job(find_config(arguments.config), arguments.overrides)
    path = arguments.run_dir or Path("runs") / config.name
    if arguments.describe:
        print(describe(config))
        return None
    try:
        if isinstance(config, SpineConfig | LevelConfig):
            _train_spine(config, path, arguments)
            return None
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


def _train_spine(config: SpineConfig | LevelConfig, path: Path, arguments: argparse.Namespace) -> None:
    how = {"resume": arguments.resume, "overwrite": arguments.overwrite}
    check_spine_folder(path, **how)  # before the images are read
    films = training_films_of(config)
    last = train_spine(config, films, path, torch.device(choose_device(arguments.device)), **how)
    print(f"{last}: {config.train.steps} steps on {len(films)} images")
