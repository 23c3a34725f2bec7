"""Cross-validation: a run per fold, and every film measured by the network that did not train on it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from vertebra_kp.config.io import load_config
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.metrics import summarise
from vertebra_kp.evaluation.schema import Metrics
from vertebra_kp.evaluation.store import Evaluation, load_evaluation, pooled
from vertebra_kp.evaluation.uncertainty.calibration import COVERAGE, errors_of
from vertebra_kp.evaluation.uncertainty.coverage import cross_coverage
from vertebra_kp.experiments.study import Planned, Settings, Study, StudyFile

# Of an evaluation's metrics.json: what is the same for all folds.
COMMON = (
    *("source", "split_file_sha256", "stored_order", "repair_file"),
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
            f"data.validation_splits, which have {folds}; make a split file with scripts/split_data.py --folds"
        )
    planned, variants = [], {}
    for seed in seeds:
        for fold in folds:
            others = ", ".join(other for other in folds if other != fold)
            own = [f"data.train_splits=[{others}]", f"data.validation_splits=[{fold}]"]
            variants[fold] = own
            name = f"{fold}-{seed}"
            every = [*overrides, *own, f"train.seed={seed}", f"name={name}"]
            settings = Settings(load_config(config, every))
            planned.append(Planned(fold, seed, config, every, folder / "runs" / name, settings))
    file = StudyFile(
        base=config, overrides=list(overrides), seeds=list(seeds), baseline=folds[0], variants=variants
    )
    return Study(folder, file, planned)


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
    first = json.loads((study.planned[0].run_dir / evaluations / "metrics.json").read_text(encoding="utf-8"))
    configs = [load_config(one.file.base, one.file.overrides).model_dump(mode="json") for one in studies]
    about = {name: first.get(name) for name in COMMON} | {
        "split": study.names,
        "seeds": study.file.seeds,
        **dict(zip(("config", "refine"), configs, strict=False)),
    }
    found = {
        "coverage": cross_coverage(errors, schema, promised=COVERAGE, part_of=fold_of),
        "coverage_by": COVERAGE_BY,
    }
    return every, cast(Metrics, about | {**summarise(every.results, schema)} | found)
