"""Cross-validation: a run per fold, and every film measured by the network that did not train on it."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from vertebra_kp.config.io import load_config
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import DONE, FAILED, INTERRUPTED
from vertebra_kp.core.files import write_json
from vertebra_kp.evaluation.metrics import summarise
from vertebra_kp.evaluation.schema import Metrics, read_metrics
from vertebra_kp.evaluation.store import FILE, Evaluation, load_evaluation, pooled, save_evaluation
from vertebra_kp.evaluation.uncertainty.calibration import COVERAGE, errors_of
from vertebra_kp.evaluation.uncertainty.coverage import cross_coverage
from vertebra_kp.experiments import launch
from vertebra_kp.experiments.collect import missing
from vertebra_kp.experiments.launch import Stop, record_ended, run_child, run_several, run_to_end
from vertebra_kp.experiments.study import Study, StudyFile, trained_runs
from vertebra_kp.training.run_folder import RunFolder

# Of an evaluation's metrics.json: what is the same for all folds.
COMMON = (
    *("source", "split_file_sha256", "stored_order", "repair_file", "names"),
    *("codec", "flip", "hardware", "version"),
)
COVERAGE_BY = "every fold judged by a calibration on the other folds, each predicted by its own network"


def plan_folds(config: Path, overrides: Sequence[str], folder: Path, seeds: Sequence[int]) -> Study:
    """A study whose variants are folds: each split that trains or validates in ``config`` validates once.

    Raises UserError where there are no two splits to take turns.
    """
    given = load_config(config, overrides)
    folds = sorted({*given.data.train_splits, *given.data.validation_splits})
    if len(folds) < 2:
        raise UserError(
            f"{config}: cross-validation needs two splits or more in data.train_splits and "
            f"data.validation_splits, which have {folds}; make a split file of folds"
        )
    variants = {}
    for fold in folds:
        others = ", ".join(other for other in folds if other != fold)
        variants[fold] = [f"data.train_splits=[{others}]", f"data.validation_splits=[{fold}]"]
    file = StudyFile(
        base=config, overrides=list(overrides), seeds=list(seeds), baseline=folds[0], variants=variants
    )
    return Study(folder, file, trained_runs(folder, file, config))


def train_folds(study: Study, jobs: int, stop: Stop) -> int:
    """Train the folds that are missing, ``jobs`` at a time; returns the exit code."""
    # A fold whose row was committed elsewhere trains again: its films are to be measured here.
    todo = [run for run in study.planned if run in missing(study) or not RunFolder(run.run_dir).best.is_file()]
    failed = record_ended(study, run_several(todo, partial(run_to_end, stop=stop), jobs), stop)
    return INTERRUPTED if stop.requested else FAILED if failed else DONE


def measure_folds(studies: Sequence[Study], stop: Stop, suffix: str = "") -> tuple[int, Metrics | None]:
    """Measure every fold's films, and all together in ``runs/all``; returns the exit code and the figures.

    ``studies`` are as for ``pool_folds``. With the ``suffix`` "_stored" films are measured against AASCE's labels
    as they are stored. Always anew: half a minute costs less than to find out what an older evaluation was made
    with.
    """
    name, study = f"evaluation{suffix}", studies[0]
    for run, *refine in zip(*(one.planned for one in studies), strict=True):
        if stop.requested:
            return INTERRUPTED, None
        command = ["evaluate", "--network", str(RunFolder(run.run_dir).best), "--out", str(run.run_dir / name)]
        command += ["--source", run.settings.config.data.source, "--split", run.variant]
        command += ["--stored-order"] if suffix else []
        for second in refine:
            command += ["--refine", str(RunFolder(second.run_dir).best)]
        log = run.run_dir / "evaluation.txt"
        if code := run_child([*launch.PROGRAM, *command], log, stop):
            if code != INTERRUPTED:
                print(f"failed: {run}, exit code {code}; see {log}", file=sys.stderr)
            return code, None
    evaluation, metrics = pool_folds(studies, name)
    out = study.run_folders / f"all{suffix}"
    written = save_evaluation(evaluation, out / FILE)
    write_json(metrics | {"evaluation_sha256": written}, out / "metrics.json")
    write_json(metrics, study.folder / f"metrics{suffix}.json")  # beside the rows, to be committed with them
    return DONE, metrics


def pool_folds(studies: Sequence[Study], evaluations: str) -> tuple[Evaluation, Metrics]:
    """All folds' films as one evaluation, and its figures as ``metrics.json`` has them.

    ``studies`` are that of whole films and, where there is a crop refinement, that of vertebrae. ``evaluations``
    is the folder in every run folder that holds the fold's own. With several seeds every film is there once per
    seed; intervals come from resampled patients. Coverage is cross-conformal over the folds.
    """
    study = studies[0]
    parts = [load_evaluation(run.run_dir / evaluations) for run in study.planned]
    every = pooled(parts)
    schema = every.schema
    fold_of = [run.variant for run, part in zip(study.planned, parts, strict=True) for _ in part.results]
    errors = [errors_of(result, schema) for result in every.results]
    first = read_metrics(study.planned[0].run_dir / evaluations / "metrics.json")
    configs = [load_config(one.file.base, one.file.overrides).model_dump(mode="json") for one in studies]
    metrics = {
        **{name: first.get(name) for name in COMMON},
        "split": study.names,
        "seeds": study.file.seeds,
        **dict(zip(("config", "refine"), configs, strict=False)),
        **summarise(every.results, schema),
        "coverage": cross_coverage(errors, schema, promised=COVERAGE, part_of=fold_of),
        "coverage_by": COVERAGE_BY,
    }
    return every, cast(Metrics, metrics)
