"""The command instability: how much segments move between flexion and extension."""

import argparse
from pathlib import Path

from vertebra_kp.cli.network_choice import choose_network
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.images import film_size
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.measures import Measurement
from vertebra_kp.measures.instability import Criterion, instability
from vertebra_kp.reports.interpretation import interpret

VERDICTS = {True: "unstable", False: "not unstable", None: "not measurable"}


def run(arguments: argparse.Namespace) -> None:
    criterion = Criterion(arguments.translation_mm, arguments.angle_deg)
    predictor = choose_network(arguments)
    if predictor.schema.view != "LA":
        raise UserError(f"the network reads {predictor.schema.name}; instability is measured on lateral images")
    flexion, extension = (measure(predictor, path, arguments) for path in (arguments.flexion, arguments.extension))
    beyond = f"beyond {criterion.translation_mm:g} mm or {criterion.angle_deg:g} degrees"
    print(f"{'segment':<9}{'slip, mm':>10}{'disc angle, deg':>17}   {beyond}")
    for segment in instability(flexion, extension, criterion):
        changes = ["-" if it is None else f"{it:.1f}" for it in (segment.translation_mm, segment.angle_deg)]
        reasons = f"  ({'; '.join(segment.reasons)})" if segment.reasons else ""
        print(f"{segment.at:<9}{changes[0]:>10}{changes[1]:>17}   {VERDICTS[segment.unstable]}{reasons}")


def measure(predictor: Predictor, path: Path, arguments: argparse.Namespace) -> list[Measurement]:
    prediction, size = predictor.predict(path), film_size(path)
    sides = {"spacing_mm": arguments.spacing_mm, "anterior_side": arguments.anterior_side}
    return interpret(prediction, predictor.schema, size, **sides).measurements
