"""The command robustness: errors and out-of-distribution scores on films that are made worse step by step."""

import argparse

from vertebra_kp.cli.film_choice import choose_films
from vertebra_kp.cli.network_choice import choose_network, find_calibration
from vertebra_kp.evaluation.robustness import FILE, measure_robustness, write_rows


def run(arguments: argparse.Namespace) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    predictor = choose_network(arguments)
    calibrated = find_calibration(arguments, predictor)
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
