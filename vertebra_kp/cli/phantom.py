"""The command phantom: synthetic films with their labels, or a contact sheet of them."""

import argparse

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.files import write_image
from vertebra_kp.data.phantom import ANATOMIES
from vertebra_kp.data.phantom.contact_sheet import contact_sheet
from vertebra_kp.data.phantom.folder import write_films

SHEET_FILMS, SHEET_FILM_SIZE, SHEET_QUALITY = 3, (320, 160), 75


def run(arguments: argparse.Namespace) -> None:
    anatomy, out, sheet_path = arguments.anatomy or "la_lumbar", arguments.out, arguments.contact_sheet
    if out is None and sheet_path is None:
        raise UsageError("nothing to write: give --out DIR, --contact-sheet FILE, or both")
    if anatomy not in ANATOMIES:
        raise UsageError(f"--anatomy {anatomy}: synthetic images are made of {', '.join(sorted(ANATOMIES))}")
    if out is not None:
        mirrored = write_films(
            SCHEMAS[anatomy],
            arguments.preset,
            seed=arguments.seed,
            films=arguments.num_images,
            size=tuple(arguments.size),
            folder=out,
        )
        print(f"{arguments.num_images} images, labels.csv and truth.json are in {out}")
        if mirrored:
            print(f"{mirrored} of them have their anterior side at the right: see anterior_side in truth.json")
    if sheet_path is not None:
        sheet = contact_sheet(arguments.seed, SHEET_FILMS, SHEET_FILM_SIZE)
        write_image(sheet[..., ::-1], sheet_path, jpeg_quality=SHEET_QUALITY)
        print(f"contact sheet: {sheet_path}")
