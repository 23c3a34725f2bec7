"""Learn how far off a network is, on labelled films that neither trained nor selected it.

Writes calibration.json beside the run's metrics.json: predict.py and report.py take it from there and give every
corner a region and every measure an interval. The coverage that is printed is cross-conformal: patients are judged
by what the others say.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from vertebra_kp.cli.command_line import exit_code
from vertebra_kp.cli.film_choice import add_film_arguments, check_film_arguments, choose_films
from vertebra_kp.cli.network_choice import about_network, add_network_arguments, choose_network
from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import State
from vertebra_kp.core.provenance import code_version
from vertebra_kp.data.datasets import training_films
from vertebra_kp.evaluation.runner import evaluate_films
from vertebra_kp.evaluation.uncertainty.calibration import COVERAGE, calibrate, errors_of
from vertebra_kp.evaluation.uncertainty.coverage import coverage_lines, cross_coverage
from vertebra_kp.evaluation.uncertainty.shape import fit_shapes
from vertebra_kp.evaluation.uncertainty.store import (
    FILE,
    Calibrated,
    calibration_of,
    patient_fingerprint,
    save_calibrated,
    signs_of_prediction,
)
from vertebra_kp.evaluation.uncertainty.trust import fit_trust

MOST_SPINES = 500  # that a shape model is learned from


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_network_arguments(parser)
    add_film_arguments(parser, seed=3_000_003, number=500)
    parser.add_argument("--coverage", type=float, default=COVERAGE, help="that regions and intervals promise")
    parser.add_argument("--out", type=Path, help=f"default: {FILE} in the run's folder")
    arguments = parser.parse_args()
    check_film_arguments(parser, arguments)
    if not 0 < arguments.coverage < 1:
        parser.error(f"--coverage {arguments.coverage:g}: must be above 0 and below 1, such as 0.9")
    if arguments.ensemble and arguments.out is None:
        parser.error("--ensemble: give --out, too; the run's folder is for the calibration of the run alone")
    return arguments


def labelled_spines(config: Config) -> list[np.ndarray]:
    """Corners ``[levels, 4, 2]`` of films that train the network, nan where not labelled."""
    films = training_films(config)
    # Fresh phantoms do not end with the first epoch: index goes on from film to film.
    endless = config.data.source == "phantom" and config.data.phantom.fresh
    number = MOST_SPINES if endless else min(len(films), MOST_SPINES)
    drawn = (films.at(0, i).labels() for i in range(number))
    return [np.where((of.states == State.LABELLED)[..., None], of.points_xy_image, np.nan) for of in drawn]


def run(arguments: argparse.Namespace) -> None:
    predictor = choose_network(arguments)
    schema, config = predictor.schema, predictor.config
    out: Path = arguments.out or calibration_of(arguments.checkpoint)
    if arguments.validation:
        print("note: these films selected the checkpoint: regions and intervals will be a little too small")
    arguments, films = choose_films(arguments, config, predictor.film_size)
    if arguments.root is not None and arguments.source == config.data.source:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": arguments.root})})
    shapes = fit_shapes(labelled_spines(config), schema)
    evaluated = evaluate_films(predictor.network, config, films, predictor.refiner, progress=True)
    errors = [errors_of(item.result, schema) for item in evaluated]
    calibration = calibrate(errors, schema, arguments.coverage)
    trust = fit_trust([signs_of_prediction(item.prediction, shapes) for item in evaluated])
    about = {
        **about_network(arguments),
        "mark": predictor.mark,
        "step": predictor.step,
        "films_identity": films.identity,
        "source": arguments.source,
        "split": arguments.split,
        "version": code_version(),
        "cross_coverage": cross_coverage(errors, schema, promised=arguments.coverage),
    }
    patients = frozenset(patient_fingerprint(film.group) for film in errors)
    save_calibrated(Calibrated(calibration, shapes, trust, patients), out, about)
    print("\n".join(coverage_lines(about["cross_coverage"], each=True)))
    print(f"written to {out}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: run(parse_arguments())))
