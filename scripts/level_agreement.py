"""Whether films of one patient name their vertebrae alike, by labels and by a network: which of both to believe.

Writes pairs.csv, a row for each two films of a patient, and prints what clear pairs tell. Where labels contradict
each other, no network can agree with all of them.
"""

import argparse
import csv
import sys
from dataclasses import asdict
from pathlib import Path

from vertebra_kp.audit.level_agreement import MOST_PAIRS, compare_films, pair_named, shares_of
from vertebra_kp.cli.command_line import exit_code
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import labelled_records
from vertebra_kp.data.sources import SOURCES, schema_of
from vertebra_kp.data.splits import load_split_file, select

PAIRS = "pairs.csv"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--anatomy", help="of the labels; not needed for aasce")
    parser.add_argument("--split-file", help="file of splits, or the name of a committed one (aasce)")
    parser.add_argument("--split", nargs="+", help="only these splits of it; default: all films")
    parser.add_argument("--repair-file", help="repairs of labels, such as aasce")
    parser.add_argument(
        "--films",
        type=Path,
        metavar="CSV",
        help="films.csv of an evaluation on the same labels: its column shift_levels tells the network's names",
    )
    parser.add_argument(
        "--most",
        type=int,
        default=MOST_PAIRS,
        metavar="N",
        help="pairs of a patient, drawn by lot, more where not every film would be seen; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {PAIRS}")
    arguments = parser.parse_args()
    if bool(arguments.split) != bool(arguments.split_file):
        parser.error("--split and --split-file go together")
    if arguments.most < 1:
        parser.error(f"--most {arguments.most}: must be 1 or more")
    return arguments


def run() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    schema = schema_of(arguments.source, arguments.anatomy)
    records = labelled_records(arguments.source, arguments.root, schema, repair_file=arguments.repair_file)
    if arguments.split:
        records = select(records, load_split_file(arguments.split_file), arguments.split)
    shifts = read_shifts(arguments.films) if arguments.films else {}
    if arguments.films and not shifts.keys() & {record.id for record in records}:
        raise UserError(f"--films {arguments.films}: none of its films is among the {len(records)} of the source")
    compared = compare_films(records, schema, arguments.most)
    pairs = [pair_named(first, second, apart, shifts) for first, second, apart in compared]
    if not pairs:
        raise UserError("no patient has two films with enough labels; there is nothing to compare")
    with (arguments.out / PAIRS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(pairs[0])))
        writer.writeheader()
        writer.writerows(asdict(pair) for pair in pairs)
    clear = [pair for pair in pairs if pair.clear]
    patients = [len({pair.group for pair in some}) for some in (pairs, clear)]
    print(f"{len(pairs)} pairs of films of {patients[0]} patients")
    print(f"{len(clear)} of {patients[1]} patients are clear: their best match is the only good one. Of these:")
    for share in shares_of(pairs, shifts):
        told = (
            "" if share.interval is None else " ({:.1f} to {:.1f})".format(*(100 * end for end in share.interval))
        )
        print(f"  {share.name:<60}{100 * share.value:5.1f} %{told} of {share.number}")
    print(f"written to {arguments.out / PAIRS}")


def read_shifts(path: Path) -> dict[str, float]:
    """``shift_levels`` of every film that has one, by id. Raises UserError for a table of another kind."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"id", "shift_levels"} <= rows[0].keys():
        raise UserError(f"{path}: has no columns id and shift_levels; give films.csv of scripts/evaluate.py")
    try:
        return {row["id"]: float(row["shift_levels"]) for row in rows if row["shift_levels"]}
    except ValueError as error:
        raise UserError(f"{path}: shift_levels must be a number or empty ({error})") from None


if __name__ == "__main__":
    sys.exit(exit_code(run))
