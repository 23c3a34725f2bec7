"""The command level-agreement: whether labels, settled names, and a network name a patient's vertebrae alike."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from vertebra_kp.audit.level_agreement import Pair, compare_films, pair_named, read_shifts, shares_of
from vertebra_kp.audit.settled_names import count_contradictions, read_compared
from vertebra_kp.cli.film_choice import labelled_records
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_csv
from vertebra_kp.data.level_marks import label_offsets, load_marks
from vertebra_kp.data.record import Record

PAIRS = "pairs.csv"
SETTLED = "settled.csv"


def run(arguments: argparse.Namespace) -> None:
    marks = load_marks(arguments.source) if arguments.names == "settled" else None
    # Pairs are always compared by the labels; settled names are judged on the same pairs.
    (records, schema), table = labelled_records(arguments), arguments.image_table
    arguments.out.mkdir(parents=True, exist_ok=True)
    shifts = read_shifts(table) if table else {}
    if table and not shifts.keys() & {record.id for record in records}:
        raise UserError(f"{table}: none of its images is among the {len(records)} of the source")
    if arguments.compared is not None:
        pairs = _compared(arguments.compared, records)
    else:
        pairs = _compare(arguments, records, schema, shifts)
    clear = [pair for pair in pairs if pair.clear]
    patients = [len({pair.group for pair in some}) for some in (pairs, clear)]
    print(f"{len(pairs)} pairs of images of {patients[0]} patients")
    print(f"{len(clear)} of {patients[1]} patients are clear: their best match is the only good one. Of these:")
    for share in shares_of(pairs, shifts):
        ends = (
            "" if share.interval is None else " ({:.1f} to {:.1f})".format(*(100 * end for end in share.interval))
        )
        print(f"  {share.name:<60}{100 * share.value:5.1f} %{ends} of {share.number}")
    if marks is not None:
        offsets = label_offsets(records, marks, schema)
        rows = [asdict(row) for row in count_contradictions(pairs, offsets)]
        write_csv(list(rows[0]), rows, arguments.out / SETTLED)
        print(f"names are settled on {len(offsets)} of {len(records)} images. Of clear pairs of these")
        for row in rows:
            print(f"  {row['names']:<8}contradict each other in {row['contradictions']} of {row['clear']}")
        print(f"written to {arguments.out / SETTLED}")


def _compare(
    arguments: argparse.Namespace, records: Sequence[Record], schema: Schema, shifts: Mapping[str, float]
) -> list[Pair]:
    """The pairs by their images, written down."""
    compared = compare_films(records, schema, arguments.most)
    pairs = [pair_named(first, second, apart, shifts) for first, second, apart in compared]
    if not pairs:
        raise UserError("no patient has two images with enough labels; there is nothing to compare")
    rows = [asdict(pair) for pair in pairs]
    write_csv(list(rows[0]), rows, arguments.out / PAIRS)
    print(f"written to {arguments.out / PAIRS}")
    return pairs


def _compared(path: Path, records: Sequence[Record]) -> list[Pair]:
    """Those pairs of an earlier comparison of which both images are among the records."""
    ids = {record.id for record in records}
    pairs = [pair for pair in read_compared(path) if {pair.first, pair.second} <= ids]
    if not pairs:
        raise UserError(f"{path}: none of its pairs is among the {len(records)} images of the source")
    return pairs
