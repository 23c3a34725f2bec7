"""Run what is missing of a study and compare its variants; start it again to go on after any interruption."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.experiments.cluster import run_on_ray
from vertebra_kp.experiments.collect import adopt, collect, missing, move_stale, refuse_stale, to_run
from vertebra_kp.experiments.launch import (
    Stop,
    record_ended,
    run_several,
    run_to_end,
    stop_on_signals,
    tell_failed,
)
from vertebra_kp.experiments.plots import draw_plots
from vertebra_kp.experiments.slurm import write_array
from vertebra_kp.experiments.study import Planned, Study, read_study
from vertebra_kp.experiments.table import table
from vertebra_kp.training.loop import EXIT_INTERRUPTED

SCRIPTS = Path(__file__).parent


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Exit codes: 0 done, 1 an error or a run that failed, {EXIT_INTERRUPTED} stopped by SIGTERM or "
        "Ctrl-C after the runs wrote their checkpoints.",
    )
    parser.add_argument("folder", type=Path, help="folder with study.yaml, such as experiments/01_freeze_schedule")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time; they share a GPU, or the cores (set OMP_NUM_THREADS); --ray gives each its GPU",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--table", action="store_true", help="run nothing: the table and plots of what is recorded")
    what.add_argument("--run", nargs=2, metavar=("VARIANT", "SEED"), help="one run, left in its folder unrecorded")
    what.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="on a Ray cluster; without ADDRESS on a local one"
    )
    what.add_argument("--slurm", action="store_true", help="write a SLURM array of what is missing")
    parser.add_argument(
        "--sbatch-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="with --slurm, once per option and with an equals sign: --sbatch-option=--gres=gpu:1",
    )
    stale = parser.add_mutually_exclusive_group()
    stale.add_argument("--rerun-stale", action="store_true", help="move results of other settings out, run anew")
    stale.add_argument("--keep-stale", action="store_true", help="count rows of other settings as they are")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: must be 1 or more")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = stop_on_signals()
    try:
        study = read_study(arguments.folder)
        if arguments.table:
            show(study)
            return 0
        if arguments.run:
            return run_one(study, *arguments.run, stop)
        prepare(study, arguments)
        if arguments.slurm:
            return hand_to_slurm(study, arguments)
        code = run_missing(study, arguments, stop)
        show(study)
        return code
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def prepare(study: Study, arguments: argparse.Namespace) -> None:
    """Deal with what other settings have left, and take over what is finished already."""
    if arguments.rerun_stale:
        for variant, seed in move_stale(study):
            print(f"moved out: {variant}, seed {seed}")
    refuse_stale(study, keep_rows=arguments.keep_stale)
    for run in collect(study):
        print(f"{run}: was finished in {run.run_dir}")
    for run, folder in adopt(study):
        print(f"{run}: taken over from {folder}")


def run_one(study: Study, variant: str, seed: str, stop: Stop) -> int:
    run = study.run(variant, int(seed))
    code = run_to_end(run, SCRIPTS, stop)
    if code not in (0, EXIT_INTERRUPTED):
        tell_failed(run, code)
    return code


def hand_to_slurm(study: Study, arguments: argparse.Namespace) -> int:
    runs = [run for run in missing(study) if run.trains]
    if not runs:
        print("nothing is left to train")
        return 0
    ablate = Path(__file__)
    path = write_array(study, runs, ablate, jobs=arguments.jobs, options=arguments.sbatch_option)
    print(f"{len(runs)} runs, {arguments.jobs} at a time; submit them:  sbatch {path}")
    print(f"then, to record what finished and for the rest:  python {ablate} {study.folder}")
    return 0


def run_missing(study: Study, arguments: argparse.Namespace, stop: Stop) -> int:
    """Train, then measure; one line per run. Returns the exit code."""
    failed: list[Planned] = []
    todo = to_run(study)
    for runs in ([run for run in todo if run.trains], [run for run in todo if not run.trains]):
        failed += record_ended(study, ended(runs, arguments, stop), stop)
    if failed:
        print(f"failed: {'; '.join(map(str, failed))}", file=sys.stderr)
    return EXIT_INTERRUPTED if stop.requested else 1 if failed else 0


def ended(runs: list[Planned], arguments: argparse.Namespace, stop: Stop) -> Iterator[tuple[Planned, int]]:
    """Runs with their exit codes, as they end."""
    if arguments.ray is not None and runs and runs[0].trains:
        yield from run_on_ray(runs, SCRIPTS, stop, address=arguments.ray or None, jobs=arguments.jobs)
    else:
        yield from run_several(runs, partial(run_to_end, scripts=SCRIPTS, stop=stop), arguments.jobs)


def show(study: Study) -> None:
    text = table(study)
    print(text)
    partial_path = study.folder / "table.md.partial"
    partial_path.write_text(text, encoding="utf-8")
    os.replace(partial_path, study.folder / "table.md")
    pictures = draw_plots(study)
    written = ", ".join(path.name for path in pictures)
    print(f"written to {study.folder}: table.md" + (f", plots/ ({written})" if pictures else ""))
    if study.run_folders.is_dir():
        print(f"side by side:  tensorboard --logdir {study.run_folders}")


if __name__ == "__main__":
    sys.exit(main())
