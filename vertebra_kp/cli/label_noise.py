"""The command label-noise: how far apart two labellings of the same films are."""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from vertebra_kp.audit.label_noise import SAME_FILM, compare_labels
from vertebra_kp.cli.film_choice import labelled_records
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.splits import read_pairs
from vertebra_kp.evaluation.metric_table import metrics_for
from vertebra_kp.evaluation.metrics import film_errors, summarise


def run(arguments: argparse.Namespace) -> None:
    records, schema = labelled_records(arguments)
    by_id = {record.id: record for record in records}
    pairs = read_pairs(arguments.pairs)
    if unknown := sorted({film for pair in pairs for film in pair} - by_id.keys()):
        raise UserError(f"{arguments.pairs}: {unknown[0]} is no image of the source; correct the pairs")
    print(f"{'median px':>10}{'% of diagonal':>15}{'levels':>8}{'correlation':>13}  angles, degrees   images")
    same = []
    for first, second in pairs:
        twice = compare_labels(by_id[first], by_id[second], schema)
        figures = film_errors(twice.result)
        median = float(np.nanmedian(twice.result.errors_px))
        true, found = figures["cobb_true_deg"] or [], figures["cobb_predicted_deg"] or []
        apart = " ".join(f"{abs(a - b):4.1f}" for a, b in zip(true, found, strict=True))
        share = 100 * median / float(np.hypot(*twice.result.size))
        shift, correlation = figures["shift_levels"], twice.correlation
        print(f"{median:>10.1f}{share:>15.2f}{shift:>8.1f}{correlation:>13.3f}  {apart:<16}  {first} / {second}")
        if twice.same_film:
            same.append(twice.result)
    if not same:
        print(f"no pair is the same image (correlation of {SAME_FILM:g} or more)")
        return
    print(f"\n{len(same)} pairs are the same image (correlation of {SAME_FILM:g} or more).")
    print("One labelling against the other:")
    shown: Mapping[str, Any] = summarise(same, schema)
    for name in (metric.name for metric in metrics_for("label_noise")):
        if shown.get(name) is not None:
            value, interval = np.round(shown[name], 3), shown[f"{name}_ci95"]
            within = "" if interval is None else f"   95 % {np.round(interval, 3).tolist()}"
            print(f"  {name:<24}{value}{within}")
    print("a labelling against a truth that both miss alike differs by a factor of the square root of 2 less")
