"""The command convert: labels of any source, or predictions, in a format that another tool opens."""

import argparse
import shutil
import sys
from pathlib import Path

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.film_choice import labelled_records
from vertebra_kp.data.exchange import films_of_predictions, films_of_records
from vertebra_kp.data.sources import aasce
from vertebra_kp.data.sources.mendeley import without_buu_lspine
from vertebra_kp.data.writers import WRITERS, what_is_lost
from vertebra_kp.data.writers.files import path_below, refuse_existing


def run(arguments: argparse.Namespace) -> None:
    if arguments.without_buu_lspine and arguments.source != "mendeley":
        raise UsageError(
            "--without-buu-lspine is for --source mendeley: no other source holds images of BUU-LSPINE"
        )
    root: Path = aasce.find_root(arguments.root) if arguments.source == "aasce" else arguments.root
    losses = []
    if arguments.predictions:
        films = films_of_predictions(arguments.predictions, root)
    else:
        records, schema = labelled_records(arguments)
        if arguments.without_buu_lspine:
            records = without_buu_lspine(records, arguments.without_buu_lspine)
        films = films_of_records(records, root, schema)
        if mirrored := sum(record.anterior_side == "right" for record in records):
            losses.append(
                f"that {mirrored} images have their anterior side at the right: its readers take the left"
            )
    for loss in losses + what_is_lost(films, arguments.to):
        print(f"note: {arguments.to} cannot say {loss}", file=sys.stderr)
    copies = {path_below(arguments.out, film.file): film for film in films if arguments.copy_images}
    refuse_existing(copies)
    WRITERS[arguments.to](films, arguments.out)
    for target, film in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / film.file, target)
    print(f"{len(films)} images written to {arguments.out} as {arguments.to}")
