"""The command ablate: what is missing of a study is run, its variants are compared."""

import argparse
import sys
from functools import partial

from vertebra_kp.core.exit_codes import DONE, FAILED, INTERRUPTED
from vertebra_kp.core.files import write_text
from vertebra_kp.experiments.cluster import run_on_ray
from vertebra_kp.experiments.collect import adopt, missing, settle, to_run
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
    settle(study, rerun_stale=arguments.rerun_stale, keep_rows=arguments.keep_stale)
    for one, folder in adopt(study):
        print(f"{one}: taken over from {folder}")
    if arguments.slurm:
        hand_to_slurm(study, arguments)
        return DONE
    code = run_missing(study, arguments, stop)
    show(study)
    return code


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
        if arguments.ray is not None and runs and runs[0].trains:
            ended = run_on_ray(runs, stop, address=arguments.ray or None, jobs=arguments.jobs)
        else:
            ended = run_several(runs, partial(run_to_end, stop=stop), arguments.jobs)
        failed += record_ended(study, ended, stop)
    if failed:
        print(f"failed: {'; '.join(map(str, failed))}", file=sys.stderr)
    return INTERRUPTED if stop.requested else FAILED if failed else DONE


def show(study: Study) -> None:
    text = table(study)
    print(text)
    write_text(text, study.folder / "table.md")
    pictures = draw_plots(study)
    written = ", ".join(path.name for path in pictures)
    print(f"written to {study.folder}: table.md" + (f", plots/ ({written})" if pictures else ""))
    if study.run_folders.is_dir():
        print(f"side by side:  tensorboard --logdir {study.run_folders}")
