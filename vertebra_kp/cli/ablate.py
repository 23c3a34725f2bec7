"""The command ablate: what is missing of a study is run, its variants are compared."""

import argparse
import sys
from collections.abc import Iterator
from functools import partial

from vertebra_kp.core.exit_codes import DONE, FAILED, INTERRUPTED
from vertebra_kp.core.files import write_text
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


def run(arguments: argparse.Namespace) -> int:
    stop = stop_on_signals()
    study = read_study(arguments.study)
    if arguments.table:
        show(study)
        return DONE
    if arguments.run:
        one = study.run(*arguments.run)
        if (code := run_to_end(one, stop)) not in (DONE, INTERRUPTED):
            tell_failed(one, code)
        return code
    clear(study, arguments)
    if arguments.slurm:
        hand_to_slurm(study, arguments)
        return DONE
    code = run_missing(study, arguments, stop)
    show(study)
    return code


def clear(study: Study, arguments: argparse.Namespace) -> None:
    """Deal with what other settings have left, and take over what is finished already."""
    if arguments.rerun_stale:
        for variant, seed in move_stale(study):
            print(f"moved out: {variant}, seed {seed}")
    refuse_stale(study, keep_rows=arguments.keep_stale)
    for one in collect(study):
        print(f"{one}: was finished in {one.run_dir}")
    for one, folder in adopt(study):
        print(f"{one}: taken over from {folder}")


def hand_to_slurm(study: Study, arguments: argparse.Namespace) -> None:
    runs = [one for one in missing(study) if one.trains]
    if not runs:
        print("nothing is left to train")
        return
    path = write_array(study, runs, jobs=arguments.jobs, options=arguments.sbatch_option)
    print(f"{len(runs)} runs, {arguments.jobs} at a time; submit them:  sbatch {path}")
    print(f"then, to record what finished and for the rest:  vertebra-kp ablate {study.folder}")


def run_missing(study: Study, arguments: argparse.Namespace, stop: Stop) -> int:
    """Train, then measure; one line per run. Returns the exit code."""
    failed: list[Planned] = []
    todo = to_run(study)
    for runs in ([one for one in todo if one.trains], [one for one in todo if not one.trains]):
        failed += record_ended(study, ended(runs, arguments, stop), stop)
    if failed:
        print(f"failed: {'; '.join(map(str, failed))}", file=sys.stderr)
    return INTERRUPTED if stop.requested else FAILED if failed else DONE


def ended(runs: list[Planned], arguments: argparse.Namespace, stop: Stop) -> Iterator[tuple[Planned, int]]:
    """Runs with their exit codes, as they end."""
    if arguments.ray is not None and runs and runs[0].trains:
        yield from run_on_ray(runs, stop, address=arguments.ray or None, jobs=arguments.jobs)
    else:
        yield from run_several(runs, partial(run_to_end, stop=stop), arguments.jobs)


def show(study: Study) -> None:
    text = table(study)
    print(text)
    write_text(text, study.folder / "table.md")
    pictures = draw_plots(study)
    written = ", ".join(path.name for path in pictures)
    print(f"written to {study.folder}: table.md" + (f", plots/ ({written})" if pictures else ""))
    if study.run_folders.is_dir():
        print(f"side by side:  tensorboard --logdir {study.run_folders}")
