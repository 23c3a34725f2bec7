"""Writes phantom films with their labels, or a contact sheet of them."""

import argparse
import sys
from pathlib import Path

import cv2

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.phantom import ANATOMIES, PRESETS
from vertebra_kp.data.phantom.contact_sheet import contact_sheet
from vertebra_kp.data.phantom.folder import write_films

SHEET_FILMS, SHEET_FILM_SIZE, SHEET_QUALITY = 3, (320, 160), 75


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anatomy", choices=sorted(ANATOMIES), default="la_lumbar")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(512, 256))
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for films, labels.csv and truth.json")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE", help="picture of all schemas and presets")
    options = parser.parse_args()
    if options.out is None and options.contact_sheet is None:
        parser.error("nothing to write: give --out DIR, --contact-sheet FILE, or both")
    if min(options.films, *options.size) < 1 or options.seed < 0:
        parser.error("films and both sizes must be at least 1, seed at least 0")

    if options.out is not None:
        try:
            mirrored = write_films(
                SCHEMAS[options.anatomy],
                options.preset,
                seed=options.seed,
                films=options.films,
                size=tuple(options.size),
                folder=options.out,
            )
        except OSError as error:
            print(f"make_phantom: {error}", file=sys.stderr)
            return 1
        print(f"{options.films} films, labels.csv and truth.json are in {options.out}")
        if mirrored:
            print(f"{mirrored} of them have their anterior side at the right: see anterior_side in truth.json")
    if options.contact_sheet is not None:
        sheet = contact_sheet(options.seed, SHEET_FILMS, SHEET_FILM_SIZE)
        options.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(options.contact_sheet), sheet, [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY]):
            print(f"make_phantom: cannot write {options.contact_sheet}", file=sys.stderr)
            return 1
        print(f"contact sheet: {options.contact_sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
