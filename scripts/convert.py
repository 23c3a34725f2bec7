"""Labels of any source, or predictions, in a format that another tool opens.

python scripts/convert.py --source labelme --root FILMS --anatomy la_lumbar --to coco --out OUT
python scripts/convert.py --predictions results/predictions.json --root FILMS --to label_studio --out OUT
python scripts/convert.py --source mendeley --anatomy la_lumbar --root FOLDER --without-buu-lspine BUU_FOLDER ...
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.exchange import films_of_predictions, films_of_records
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources import SOURCES, aasce, read_records, schema_of
from vertebra_kp.data.sources.mendeley import without_buu_lspine
from vertebra_kp.data.writers import WRITERS
from vertebra_kp.data.writers.files import path_below, refuse_existing

WITHOUT_PATIENT = ("cvat", "labelme", "slicer")
WITHOUT_SPACING = ("cvat", "labelme")


def main() -> int:
    arguments = parse_arguments()
    root: Path = arguments.root
    try:
        if arguments.predictions:
            films = films_of_predictions(arguments.predictions, root)
        else:
            schema = schema_of(arguments.source, arguments.anatomy)
            if arguments.source == "aasce":
                root = aasce.find_root(root)
            records = read_records(arguments.source, root, schema)
            if arguments.without_buu_lspine:
                records = without_buu_lspine(records, arguments.without_buu_lspine)
            films = films_of_records(records, root, schema)
            if mirrored := sum(record.anterior_side == "right" for record in records):
                print(
                    f"{mirrored} films have their anterior side at the right, which {arguments.to} cannot say: "
                    "its readers take the left",
                    file=sys.stderr,
                )
        for lost in what_is_lost(films, arguments.to):
            print(f"note: {arguments.to} cannot say {lost}", file=sys.stderr)
        copies = {path_below(arguments.out, film.file): film for film in films if arguments.copy_films}
        refuse_existing(copies)
        WRITERS[arguments.to](films, arguments.out)
        for target, film in copies.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / film.file, target)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(films)} films written to {arguments.out} as {arguments.to}")
    return 0


def what_is_lost(films: Sequence[LabelledFilm], to: str) -> list[str]:
    """What the films have and the format has no place for."""
    lost = []
    if to in WITHOUT_PATIENT and any(film.group != film.file for film in films):
        lost.append(
            "whose films they are; deal splits from the original, or give the pairs of a patient by --pairs"
        )
    if to in WITHOUT_SPACING and any(film.spacing_mm is not None for film in films):
        lost.append("how large a pixel is")
    return lost


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--source", choices=SOURCES, help="format of the labels")
    given.add_argument("--predictions", type=Path, metavar="FILE", help="predictions.json of predict.py")
    parser.add_argument("--root", type=Path, required=True, help="folder of the films")
    parser.add_argument("--anatomy", choices=SCHEMAS, help="of the labels; not needed for aasce and predictions")
    parser.add_argument(
        "--without-buu-lspine",
        type=Path,
        metavar="FOLDER",
        help="leave out films that this copy of BUU-LSPINE has too, to mix mendeley with it",
    )
    parser.add_argument("--to", choices=sorted(WRITERS), required=True)
    parser.add_argument("--copy-films", action="store_true", help="also copy the films beside the annotations")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.without_buu_lspine and arguments.source != "mendeley":
        parser.error("--without-buu-lspine is for --source mendeley: no other source holds films of BUU-LSPINE")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
