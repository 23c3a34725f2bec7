"""How far apart two labellings of the same films are: the floor below which a network's error says nothing."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from vertebra_kp.audit.label_noise import SAME_FILM, compare_labels
from vertebra_kp.cli.command_line import exit_code
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import labelled_records
from vertebra_kp.data.sources import SOURCES, schema_of
from vertebra_kp.evaluation.metric_table import metrics_for
from vertebra_kp.evaluation.metrics import film_errors, summarise


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--anatomy", help="of the labels; not needed for aasce")
    parser.add_argument(
        "--pairs", type=Path, required=True, help="CSV, columns 1 and 2: ids of films labelled twice"
    )
    parser.add_argument("--repair-file", help="repairs of labels, such as aasce")
    return parser.parse_args()


def run() -> None:
    arguments = parse_arguments()
    schema = schema_of(arguments.source, arguments.anatomy)
    records = labelled_records(arguments.source, arguments.root, schema, repair_file=arguments.repair_file)
    by_id = {record.id: record for record in records}
    with arguments.pairs.open(newline="", encoding="utf-8") as file:
        pairs = [row[:2] for row in list(csv.reader(file))[1:]]
    if unknown := sorted({film for pair in pairs for film in pair} - by_id.keys()):
        raise UserError(f"{arguments.pairs}: {unknown[0]} is no film of the source; correct the pairs")
    print(f"{'median px':>10}{'% of diagonal':>15}{'levels':>8}{'correlation':>13}  angles, degrees   films")
    same = []
    for first, second in pairs:
        twice = compare_labels(by_id[first], by_id[second], schema)
        figures = film_errors(twice.result)
        median = float(np.nanmedian(twice.result.errors_px))
        angles = [figures[f"cobb_{which}_deg"] for which in ("true", "predicted")]
        apart = "" if None in angles else " ".join(f"{abs(a - b):4.1f}" for a, b in zip(*angles, strict=True))
        share = 100 * median / float(np.hypot(*twice.result.size))
        shift, correlation = figures["shift_levels"], twice.correlation
        print(f"{median:>10.1f}{share:>15.2f}{shift:>8.1f}{correlation:>13.3f}  {apart:<16}  {first} / {second}")
        if twice.same_film:
            same.append(twice.result)
    if not same:
        print(f"no pair is the same film (correlation of {SAME_FILM:g} or more)")
        return
    told = summarise(same, schema)
    print(
        f"\n{len(same)} pairs are the same film (correlation of {SAME_FILM:g} or more). "
        "One labelling against the other:"
    )
    for name in (metric.name for metric in metrics_for("label_noise")):
        value, interval = told.get(name), told.get(f"{name}_ci95")
        if value is not None:
            told_interval = "" if interval is None else f"   95 % {np.round(interval, 3).tolist()}"
            print(f"  {name:<24}{np.round(value, 3)}{told_interval}")
    print("a labelling against a truth that both miss alike differs by a factor of the square root of 2 less")


if __name__ == "__main__":
    sys.exit(exit_code(run))
