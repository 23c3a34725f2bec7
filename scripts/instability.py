"""Instability between vertebrae from two lateral films of one patient, in flexion and in extension.

A segment is unstable when its slip changes by more than --translation-mm or its disc angle by more than
--angle-deg from one film to the other. The defaults are one convention among several: name the criterion beside
the result.
"""

import argparse
import sys
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.data.images import film_size
from vertebra_kp.inference.predictor import Predictor, load
from vertebra_kp.measures import Measurement
from vertebra_kp.measures.instability import Criterion, instability
from vertebra_kp.reports.interpretation import read

VERDICTS = {True: "unstable", False: "not unstable", None: "not measurable"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("flexion", type=Path)
    parser.add_argument("extension", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    parser.add_argument(
        "--anterior-side", choices=("left", "right"), required=True, help="where both films look to"
    )
    parser.add_argument(
        "--spacing-mm", type=float, help="of a pixel of both films; without it angles decide alone"
    )
    parser.add_argument("--translation-mm", type=float, default=Criterion.translation_mm)
    parser.add_argument("--angle-deg", type=float, default=Criterion.angle_deg)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    arguments = parser.parse_args()
    if arguments.spacing_mm is not None and not 0 < arguments.spacing_mm < float("inf"):
        parser.error(f"--spacing-mm {arguments.spacing_mm:g}: must be the size of a pixel in mm, above 0")
    return arguments


def measure_film(predictor: Predictor, path: Path, arguments: argparse.Namespace) -> list[Measurement]:
    reading = read(
        predictor.predict(path),
        predictor.schema,
        film_size(path),
        spacing_mm=arguments.spacing_mm,
        anterior_side=arguments.anterior_side,
    )
    return reading.measurements


def main() -> int:
    arguments = parse_arguments()
    criterion = Criterion(arguments.translation_mm, arguments.angle_deg)
    try:
        predictor = load(arguments.checkpoint, arguments.device)
        if predictor.schema.view != "LA":
            raise UserError(f"the network reads {predictor.schema.name}; instability is measured on lateral films")
        films = [measure_film(predictor, path, arguments) for path in (arguments.flexion, arguments.extension)]
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{'segment':<9}{'slip, mm':>10}{'disc angle, deg':>17}   beyond {criterion.translation_mm:g} mm", end=" "
    )
    print(f"or {criterion.angle_deg:g} degrees")
    for segment in instability(*films, criterion):
        changes = [
            "-" if change is None else f"{change:.1f}" for change in (segment.translation_mm, segment.angle_deg)
        ]
        told = f"  ({'; '.join(segment.reasons)})" if segment.reasons else ""
        print(f"{segment.at:<9}{changes[0]:>10}{changes[1]:>17}   {VERDICTS[segment.unstable]}{told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
