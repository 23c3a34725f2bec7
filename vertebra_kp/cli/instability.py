"""The command instability: how much segments move between flexion and extension."""

import argparse

from vertebra_kp.cli.network_choice import choose_network
from vertebra_kp.core.errors import UserError
from vertebra_kp.inference.doubts import MEANINGS
from vertebra_kp.measures.instability import Criterion, instability
from vertebra_kp.reports.interpretation import interpret

VERDICTS = {True: "unstable", False: "not unstable", None: "not measurable"}


def run(arguments: argparse.Namespace) -> None:
    criterion = Criterion(arguments.translation_mm, arguments.angle_deg)
    predictor = choose_network(arguments)
    if predictor.schema.view != "LA":
        raise UserError(f"the network reads {predictor.schema.name}; instability is measured on lateral images")
    sides = {"spacing_mm": arguments.spacing_mm, "anterior_side": arguments.anterior_side}
    predictions = [predictor.predict(path) for path in (arguments.flexion, arguments.extension)]
    for path, one in zip((arguments.flexion, arguments.extension), predictions, strict=True):
        for doubt in one.doubts:
            print(f"{path} needs a second opinion: {MEANINGS[doubt]}")
    flexion, extension = (interpret(one, predictor.schema, one.size, **sides).measurements for one in predictions)
    beyond = f"beyond {criterion.translation_mm:g} mm or {criterion.angle_deg:g} degrees"
    print(f"{'segment':<9}{'slip, mm':>10}{'disc angle, deg':>17}   {beyond}")
    for segment in instability(flexion, extension, criterion):
        changes = ["-" if it is None else f"{it:.1f}" for it in (segment.translation_mm, segment.angle_deg)]
        reasons = f"  ({'; '.join(segment.reasons)})" if segment.reasons else ""
        print(f"{segment.at:<9}{changes[0]:>10}{changes[1]:>17}   {VERDICTS[segment.unstable]}{reasons}")
