"""Train a config once per fold, and measure every film with the network that has not seen it.

The splits that train and those that validate in the config take turns: each validates once. Rows of finished folds
are in results.csv, the figures over all films in metrics.json, what report.py reads in runs/all. Start it again to
go on after any interruption.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from vertebra_kp.cli.command_line import add_set_argument
from vertebra_kp.config.differences import MAY_DIFFER
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_json
from vertebra_kp.evaluation.console import summary_lines
from vertebra_kp.evaluation.store import FILE, save_evaluation
from vertebra_kp.experiments.collect import collect, missing, move_stale, refuse_stale
from vertebra_kp.experiments.folds import plan_folds, pool_folds
from vertebra_kp.experiments.launch import Stop, record_ended, run_child, run_several, run_to_end, stop_on_signals
from vertebra_kp.experiments.study import Planned, Study
from vertebra_kp.training.loop import EXIT_INTERRUPTED
from vertebra_kp.training.run_folder import RunFolder

SCRIPTS = Path(__file__).parent
SECOND_LOOK = "second_look"  # folder of the networks of vertebrae


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Exit codes: 0 done, 1 an error or a fold that failed, {EXIT_INTERRUPTED} stopped by SIGTERM or "
        "Ctrl-C after the runs wrote their checkpoints.",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the job")
    add_set_argument(parser)
    parser.add_argument(
        "--refine",
        type=Path,
        metavar="CONFIG",
        help="YAML file of a network of vertebrae (data.patch), trained once per fold too; films are measured "
        f"with both. Of --set it is given {', '.join(MAY_DIFFER[:4])}",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each trains all folds; default: 0")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="folds at a time; they share a GPU, or the cores"
    )
    parser.add_argument(
        "--stored-order",
        action="store_true",
        help="aasce: also against the labels as stored (metrics_stored.json, runs/all_stored)",
    )
    parser.add_argument(
        "--rerun-stale", action="store_true", help="move results of other settings out, train and measure anew"
    )
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: must be 1 or more")
    if min(arguments.seeds) < 0 or len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error(f"--seeds {' '.join(map(str, arguments.seeds))}: must differ and be 0 or more")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = stop_on_signals()
    try:
        studies = [plan_folds(arguments.config, arguments.overrides, arguments.out, arguments.seeds)]
        if arguments.refine is not None:
            shared = [one for one in arguments.overrides if one.partition("=")[0] in MAY_DIFFER]
            second = plan_folds(arguments.refine, shared, arguments.out / SECOND_LOOK, arguments.seeds)
            if second.names != studies[0].names:
                raise UserError(
                    f"--refine {arguments.refine}: its folds are {', '.join(second.names)}, those of "
                    f"{arguments.config} {', '.join(studies[0].names)}; give both the same splits"
                )
            studies.append(second)
        for study in studies if arguments.rerun_stale else ():
            for fold, seed in move_stale(study):
                print(f"moved out of {study.folder}: {fold}, seed {seed}")
        for study in studies:
            if code := train_folds(study, arguments.jobs, stop):
                return code
        code = measure_folds(studies, stop)
        if arguments.stored_order:
            code = code or measure_folds(studies, stop, stored=True)
        return code
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def train_folds(study: Study, jobs: int, stop: Stop) -> int:
    refuse_stale(study, may_keep=False)  # films are measured with the networks of the run folders, not of rows
    for run in collect(study):
        print(f"{run}: was finished in {run.run_dir}")
    # A fold whose row was committed elsewhere trains again: its films are to be measured here.
    todo = [run for run in study.planned if run in missing(study) or not RunFolder(run.run_dir).best.is_file()]
    failed = record_ended(study, run_several(todo, partial(run_to_end, scripts=SCRIPTS, stop=stop), jobs), stop)
    return EXIT_INTERRUPTED if stop.requested else 1 if failed else 0


def measure_folds(studies: list[Study], stop: Stop, *, stored: bool = False) -> int:
    """Measure every fold's films, and all together, against the labels as repaired or as ``stored``.

    ``studies`` are that of whole films and, where there is one, that of vertebrae.
    """
    suffix = "_stored" if stored else ""
    name = f"evaluation{suffix}"
    study = studies[0]
    for run, *refine in zip(*(one.planned for one in studies), strict=True):
        if code := measure(run, refine, name, stop, stored=stored):
            return code
    evaluation, metrics = pool_folds(studies, name)
    out = study.folder / "runs" / f"all{suffix}"
    out.mkdir(parents=True, exist_ok=True)
    save_evaluation(evaluation, out / FILE)
    write_json(metrics, out / "metrics.json")
    write_json(metrics, study.folder / f"metrics{suffix}.json")  # beside the rows, to be committed with them
    print("\n".join(summary_lines(metrics)))
    print(f"written to {study.folder}: results.csv, metrics{suffix}.json; for report.py: {out}")
    return 0


def measure(run: Planned, refine: list[Planned], name: str, stop: Stop, *, stored: bool) -> int:
    """Always anew: half a minute costs less than to find out what an older evaluation was made with."""
    if stop.requested:
        return EXIT_INTERRUPTED
    checkpoint, out = RunFolder(run.run_dir).best, run.run_dir / name
    data = run.settings.config.data
    command = [sys.executable, str(SCRIPTS / "evaluate.py"), "--checkpoint", str(checkpoint), "--out", str(out)]
    command += ["--source", data.source, "--split", run.variant, *(["--stored-order"] if stored else [])]
    for second in refine:
        command += ["--refine", str(RunFolder(second.run_dir).best)]
    log = run.run_dir / "evaluation.txt"
    code = run_child(command, log, stop)
    if code not in (0, EXIT_INTERRUPTED):
        print(f"failed: {run}, exit code {code}; see {log}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
