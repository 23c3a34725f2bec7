"""Make a split file: folds and a calibration part, by patient, each with its share of curves or slips.

The same input gives the same file.

The committed ``aasce`` was made by (DATA holds boostnet_labeldata and the two lists)::

    python scripts/split_data.py --source aasce --root DATA/boostnet_labeldata \\
        --pairs DATA/near_duplicate_pairs.csv --leave-out DATA/overlaps_official_test.txt \\
        --out vertebra_kp/data/split_files/aasce.json
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.sources import SOURCES, read_records, schema_of
from vertebra_kp.data.splits import deal, split_file_from, unite_groups
from vertebra_kp.data.strata import stratum


def main() -> int:
    arguments = parse_arguments()
    try:
        content = make_splits(arguments)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, ids in content["splits"].items():
        print(f"{name}: {len(ids)} films of {len({content['groups'][id] for id in ids})} groups")
    print(f"left out: {sum(map(len, content['left_out'].values()))} films; written to {arguments.out}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--anatomy", choices=SCHEMAS, help="of the labels; not needed for aasce")
    parser.add_argument("--pairs", type=Path, help="CSV, columns 1 and 2: ids that show the same patient")
    parser.add_argument("--leave-out", type=Path, help="text file of ids that stand in no split, one a line")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--calibration", type=int, help="films of the calibration part (default: 40, at most 10 %%)"
    )
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def make_splits(arguments: argparse.Namespace) -> dict:
    schema = schema_of(arguments.source, arguments.anatomy)
    records = read_records(arguments.source, arguments.root, schema)
    groups = unite_groups({record.id: record.group for record in records}, read_pairs(arguments.pairs))
    left_out = read_lines(arguments.leave_out)
    used = {id: group for id, group in groups.items() if id not in left_out}
    if all(record.group == record.id for record in records) and not arguments.pairs:
        told = "every film is a patient of its own; where that is not so, name the pairs of a patient by --pairs"
        print(f"note: {arguments.source} names no patients: {told}", file=sys.stderr)
    strata = {record.id: stratum(record, schema) for record in records if record.id in used}
    calibration = arguments.calibration
    if calibration is None:
        calibration = min(40, len(used) // 10)
    fold_size = (len(used) - calibration) / arguments.folds
    if fold_size < 1:
        raise UserError(
            f"{len(used)} films: too few for {arguments.folds} folds and --calibration {calibration}; lower them"
        )
    sizes = {f"fold{i}": fold_size for i in range(arguments.folds)}
    if calibration:
        sizes["calibration"] = calibration
    content = {
        "source": arguments.source,
        "splits": deal(used, strata, sizes),
        "left_out": {arguments.leave_out.stem: sorted(left_out)} if left_out else {},
        "groups": groups,
    }
    split_file_from(content)  # what cannot be loaded is not written
    return content


def read_pairs(path: Path | None) -> list[tuple[str, str]]:
    if path is None:
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in list(csv.reader(file))[1:]]


def read_lines(path: Path | None) -> set[str]:
    return set() if path is None else set(path.read_text(encoding="utf-8").split("\n")) - {""}


if __name__ == "__main__":
    sys.exit(main())
