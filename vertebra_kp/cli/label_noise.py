"""The command label-noise: how far apart two labellings of the same films are."""

import argparse

import numpy as np

from vertebra_kp.audit.label_noise import SAME_FILM, compare_labels
from vertebra_kp.cli.film_choice import check_labelled
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import FilmSelection, records_of
from vertebra_kp.data.sources import schema_of
from vertebra_kp.data.splits import read_pairs
from vertebra_kp.evaluation.metrics import film_errors, summarise

FIGURES = (
    *("mre_px", "median_px", "median_percent_diagonal"),
    *("level_shift_rate", "cobb_mae_deg", "smape_published"),
)


def run(arguments: argparse.Namespace) -> None:
    check_labelled(arguments)
    schema = schema_of(arguments.source, arguments.anatomy)
    selection = FilmSelection(arguments.source, arguments.root, schema, repair_file=arguments.repair_file)
    records = records_of(selection)
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
        angles = zip(figures["cobb_true_deg"] or (), figures["cobb_predicted_deg"] or (), strict=False)
        apart = " ".join(f"{abs(one - other):4.1f}" for one, other in angles)
        share = 100 * median / float(np.hypot(*twice.result.size))
        shift, correlation = figures["shift_levels"], twice.correlation
        print(f"{median:>10.1f}{share:>15.2f}{shift:>8.1f}{correlation:>13.3f}  {apart:<16}  {first} / {second}")
        if twice.same_film:
            same.append(twice.result)
    if not same:
        print(f"no pair is the same image (correlation of {SAME_FILM:g} or more)")
        return
    print(
        f"\n{len(same)} pairs are the same image (correlation of {SAME_FILM:g} or more). One labelling against the"
    )
    print("other:")
    summary = dict(summarise(same, schema))
    for name in FIGURES:
        value, interval = summary.get(name), summary.get(f"{name}_ci95")
        if value is not None:
            within = "" if interval is None else f"   95 % {np.asarray(interval).round(3).tolist()}"
            print(f"  {name:<24}{np.asarray(value).round(3)}{within}")
    print("a labelling against a truth that both miss alike differs by a factor of the square root of 2 less")
