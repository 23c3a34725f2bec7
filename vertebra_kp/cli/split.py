"""The command split: folds and a calibration part, by patient, each with its share of curves or slips.

The committed ``aasce`` was made by (DATA holds boostnet_labeldata and the two lists)::

    vertebra-kp split --source aasce --root DATA/boostnet_labeldata --pairs DATA/near_duplicate_pairs.csv \\
        --leave-out DATA/overlaps_official_test.txt --output-file vertebra_kp/data/split_files/aasce.json
"""

import argparse
import json
import sys

from vertebra_kp.cli.film_choice import labelled_records
from vertebra_kp.core.files import write_text
from vertebra_kp.data.splits import make_splits, read_pairs


def run(arguments: argparse.Namespace) -> None:
    records, schema = labelled_records(arguments)
    pairs = read_pairs(arguments.pairs) if arguments.pairs else []
    if all(record.group == record.id for record in records) and not pairs:
        print(
            f"note: {arguments.source} names no patients: every image is a patient of its own; where that is not "
            "so, name the pairs of a patient by --pairs",
            file=sys.stderr,
        )
    content = make_splits(
        arguments.source,
        records,
        schema,
        pairs=pairs,
        left_out=arguments.leave_out,
        folds=arguments.folds,
        calibration=arguments.calibration_images,
    )
    path = arguments.output_file
    write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", path)
    for name, ids in content["splits"].items():
        print(f"{name}: {len(ids)} images of {len({content['groups'][id] for id in ids})} groups")
    print(f"left out: {sum(map(len, content['left_out'].values()))} images; written to {path}")
