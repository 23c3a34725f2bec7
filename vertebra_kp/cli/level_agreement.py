"""The command level-agreement: whether labels, and a network, name the vertebrae of a patient alike."""

import argparse
from dataclasses import asdict

from vertebra_kp.audit.level_agreement import compare_films, pair_named, read_shifts, shares_of
from vertebra_kp.cli.film_choice import labelled_records
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_csv

PAIRS = "pairs.csv"


def run(arguments: argparse.Namespace) -> None:
    (records, schema), table = labelled_records(arguments), arguments.image_table
    arguments.out.mkdir(parents=True, exist_ok=True)
    shifts = read_shifts(table) if table else {}
    if table and not shifts.keys() & {record.id for record in records}:
        raise UserError(f"{table}: none of its images is among the {len(records)} of the source")
    compared = compare_films(records, schema, arguments.most)
    pairs = [pair_named(first, second, apart, shifts) for first, second, apart in compared]
    if not pairs:
        raise UserError("no patient has two images with enough labels; there is nothing to compare")
    rows = [asdict(pair) for pair in pairs]
    write_csv(list(rows[0]), rows, arguments.out / PAIRS)
    clear = [pair for pair in pairs if pair.clear]
    patients = [len({pair.group for pair in some}) for some in (pairs, clear)]
    print(f"{len(pairs)} pairs of images of {patients[0]} patients")
    print(f"{len(clear)} of {patients[1]} patients are clear: their best match is the only good one. Of these:")
    for share in shares_of(pairs, shifts):
        ends = (
            "" if share.interval is None else " ({:.1f} to {:.1f})".format(*(100 * end for end in share.interval))
        )
        print(f"  {share.name:<60}{100 * share.value:5.1f} %{ends} of {share.number}")
    print(f"written to {arguments.out / PAIRS}")
