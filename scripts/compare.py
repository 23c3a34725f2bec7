"""Compare two evaluations of the same films: differences per film, intervals over patients, a verdict."""

import argparse
import sys
from pathlib import Path

from vertebra_kp.cli.command_line import exit_code
from vertebra_kp.evaluation.compare import compare, sentence
from vertebra_kp.evaluation.store import find_evaluation, load_evaluation


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("first", "second"):
        parser.add_argument(
            name, type=Path, help="folder that evaluate.py wrote to, or one that holds evaluation/"
        )
    arguments = parser.parse_args()
    found = compare(*(load_evaluation(find_evaluation(path)) for path in (arguments.first, arguments.second)))
    print(f"{'error of':<28}{'films':>6}{'first':>9}{'second':>9}{'change':>9}   95 % interval       p")
    for d in found:
        interval = f"{d.low:+.3g} to {d.high:+.3g}"
        name = f"{d.what} [{d.unit}]"
        print(
            f"{name:<28}{d.films:>6}{d.first:>9.3g}{d.second:>9.3g}{d.mean:>+9.3g}   {interval:<18}{d.p:>7.2g}"
            f"   {d.verdict}"
        )
    if len(found) > 1:
        print(f"{len(found)} comparisons: where nothing differs, one in twenty is significant by chance.")
    print(sentence(found[0], str(arguments.first), str(arguments.second)))


if __name__ == "__main__":
    sys.exit(exit_code(run))
