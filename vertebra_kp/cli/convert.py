"""The command convert: labels of any source, or predictions, in a format that another tool opens."""

import argparse
import shutil
import sys
from pathlib import Path

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.film_choice import check_labelled
from vertebra_kp.data.exchange import films_of_predictions, films_of_records
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources import aasce, read_records, schema_of
from vertebra_kp.data.sources.mendeley import without_buu_lspine
from vertebra_kp.data.writers import WRITERS, what_is_lost
from vertebra_kp.data.writers.files import path_below, refuse_existing


def run(arguments: argparse.Namespace) -> None:
    check_labelled(arguments)
    if arguments.without_buu_lspine and arguments.source != "mendeley":
        raise UsageError(
            "--without-buu-lspine is for --source mendeley: no other source holds images of BUU-LSPINE"
        )
    root: Path = aasce.find_root(arguments.root) if arguments.source == "aasce" else arguments.root
    films, losses = films_to_write(arguments, root)
    for loss in losses:
        print(f"note: {arguments.to} cannot say {loss}", file=sys.stderr)
    copies = {path_below(arguments.out, film.file): film for film in films if arguments.copy_images}
    refuse_existing(copies)
    WRITERS[arguments.to](films, arguments.out)
    for target, film in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / film.file, target)
    print(f"{len(films)} images written to {arguments.out} as {arguments.to}")


def films_to_write(arguments: argparse.Namespace, root: Path) -> tuple[list[LabelledFilm], list[str]]:
    """The films, and what they have that the format has no place for."""
    losses = []
    if arguments.predictions:
        films = films_of_predictions(arguments.predictions, root)
    else:
        schema = schema_of(arguments.source, arguments.anatomy)
        records = read_records(arguments.source, root, schema)
        if arguments.without_buu_lspine:
            records = without_buu_lspine(records, arguments.without_buu_lspine)
        films = films_of_records(records, root, schema)
        if mirrored := sum(record.anterior_side == "right" for record in records):
            losses.append(
                f"that {mirrored} images have their anterior side at the right: its readers take the left"
            )
    return films, losses + what_is_lost(films, arguments.to)
