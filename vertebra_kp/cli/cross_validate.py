"""The command cross-validate: a training per fold, every film measured by the network that has not seen it."""

import argparse

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.differences import MAY_DIFFER
from vertebra_kp.config.io import find_config
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.console import summary_lines
from vertebra_kp.experiments.collect import settle
from vertebra_kp.experiments.folds import measure_folds, plan_folds, train_folds
from vertebra_kp.experiments.launch import stop_on_signals

SECOND_LOOK = "second_look"  # folder of the networks of vertebrae


def run(arguments: argparse.Namespace) -> int:
    if len(set(arguments.seeds)) < len(arguments.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, arguments.seeds))}: must differ")
    stop = stop_on_signals()
    config, out = find_config(arguments.config), arguments.out
    studies = [plan_folds(config, arguments.overrides, out, arguments.seeds)]
    if arguments.refine_config is not None:
        refine = find_config(arguments.refine_config)
        shared = [one for one in arguments.overrides if one.partition("=")[0] in MAY_DIFFER]
        second = plan_folds(refine, shared, out / SECOND_LOOK, arguments.seeds)
        if second.names != studies[0].names:
            raise UserError(
                f"{refine}: its folds are {', '.join(second.names)}, those of {config} "
                f"{', '.join(studies[0].names)}; give both the same splits"
            )
        studies.append(second)
    for study in studies:
        # Films are measured with the networks of the run folders, not of rows: there is nothing to keep.
        settle(study, rerun_stale=arguments.rerun_stale, may_keep=False)
    for study in studies:
        if code := train_folds(study, arguments.jobs, stop):
            return code
    for suffix in ("", "_stored") if arguments.also_stored_order else ("",):
        code, metrics = measure_folds(studies, stop, suffix)
        if metrics is None:
            return code
        print("\n".join(summary_lines(metrics)))
        all_folds = out / "runs" / f"all{suffix}"
        print(f"written to {out}: results.csv, metrics{suffix}.json; for the command report: {all_folds}")
    return 0
