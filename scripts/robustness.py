"""Measure a network on films that are made worse step by step: noise, blur, rotation, cut films and so on.

Writes robustness.csv; beside an evaluation's metrics.json it becomes a part of the report. With a calibration it
also says how often a disturbed film has a higher out-of-distribution score than a clean one (area under the ROC).
"""

import argparse
import sys
from pathlib import Path

from vertebra_kp.cli.command_line import exit_code
from vertebra_kp.cli.film_choice import add_film_arguments, check_film_arguments, choose_films
from vertebra_kp.cli.network_choice import add_network_arguments, choose_network
from vertebra_kp.data.disturb import DISTURBANCES
from vertebra_kp.evaluation.robustness import FILE, measure_robustness, write_rows
from vertebra_kp.evaluation.uncertainty.store import find_calibrated


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_network_arguments(parser)
    add_film_arguments(parser, seed=4_000_003, number=50)
    parser.add_argument("--kinds", nargs="+", choices=tuple(DISTURBANCES), default=tuple(DISTURBANCES))
    parser.add_argument("--calibration", type=Path, help="default: calibration.json of the run, where it is")
    parser.add_argument("--out", type=Path, required=True, help="folder of an evaluation, or any other")
    arguments = parser.parse_args()
    check_film_arguments(parser, arguments)
    return arguments


def run(arguments: argparse.Namespace) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    predictor = choose_network(arguments)
    calibrated = find_calibrated(arguments.calibration, arguments.checkpoint, predictor.schema, predictor.mark)
    _, films = choose_films(arguments, predictor.config, predictor.film_size)
    print(f"{'kind':<14}{'strength':>9}{'median px':>11}{'mean px':>10}{'shifted':>9}{'AUC':>7}")
    rows = []
    for row in measure_robustness(predictor, films, calibrated, arguments.kinds):
        rows.append(row)
        write_rows(rows, arguments.out / FILE)
        print(
            f"{row.kind:<14}{row.strength:>9g}{row.median_px:>11.3g}{row.mre_px:>10.3g}"
            f"{row.level_shift_rate:>9.2g}{row.distrust_auc:>7.2f}  {row.unit}"
        )
    print(f"written to {arguments.out / FILE}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: run(parse_arguments())))
