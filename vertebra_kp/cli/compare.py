"""The command compare: two evaluations of the same films, a row per figure and a verdict."""

import argparse

from vertebra_kp.evaluation.compare import compare, sentence
from vertebra_kp.evaluation.store import find_evaluation, load_evaluation


def run(arguments: argparse.Namespace) -> None:
    found = compare(*(load_evaluation(find_evaluation(path)) for path in (arguments.first, arguments.second)))
    print(f"{'error of':<28}{'images':>7}{'first':>9}{'second':>9}{'change':>9}   95 % interval       p")
    for d in found:
        interval = f"{d.low:+.3g} to {d.high:+.3g}"
        print(
            f"{f'{d.what} [{d.unit}]':<28}{d.films:>7}{d.first:>9.3g}{d.second:>9.3g}{d.mean:>+9.3g}"
            f"   {interval:<18}{d.p:>7.2g}   {d.verdict}"
        )
    if len(found) > 1:
        print(f"{len(found)} comparisons: where nothing differs, one in twenty is significant by chance.")
    print(sentence(found[0], str(arguments.first), str(arguments.second)))
