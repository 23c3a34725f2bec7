"""The command calibrate: regions and intervals learned on labelled films that neither trained nor selected."""

import argparse
from pathlib import Path

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.film_choice import choose_films
from vertebra_kp.cli.network_choice import (
    about_measurement,
    check_own_images,
    choose_network,
    network_file,
    say_training_images,
)
from vertebra_kp.data.datasets import labelled_spines
from vertebra_kp.evaluation.runner import evaluate_films
from vertebra_kp.evaluation.uncertainty.calibration import calibrate, errors_of
from vertebra_kp.evaluation.uncertainty.coverage import coverage_lines, cross_coverage
from vertebra_kp.evaluation.uncertainty.shape import fit_shapes
from vertebra_kp.evaluation.uncertainty.store import (
    Calibrated,
    calibration_of,
    patient_fingerprint,
    save_calibrated,
)
from vertebra_kp.evaluation.uncertainty.trust import fit_trust, signs_of
from vertebra_kp.inference.network_file import name_of


def run(arguments: argparse.Namespace) -> None:
    network = network_file(arguments)
    if arguments.output_file is None and name_of(network) != str(network):
        raise UsageError("give --output-file: the calibration that comes with published weights stays as it is")
    predictor = choose_network(arguments)
    check_own_images(predictor)  # the shapes of spines are those that it was trained on
    schema, config = predictor.schema, predictor.config
    path: Path = arguments.output_file or calibration_of(network)
    if arguments.validation:
        print("note: these images selected the checkpoint: regions and intervals will be a little too small")
    arguments, films = choose_films(arguments, config, predictor.film_size)
    if arguments.root is not None and arguments.source == config.data.source:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": arguments.root})})
    about = about_measurement(arguments, predictor, films)
    shapes = fit_shapes(labelled_spines(config), schema)
    evaluated = evaluate_films(predictor, films, progress=True)
    about |= {"training_images": say_training_images(arguments, predictor, evaluated)}
    errors = [errors_of(item, schema) for item in evaluated]
    calibration = calibrate(errors, schema, arguments.coverage)
    trust = fit_trust([signs_of(item.prediction, shapes) for item in evaluated])
    coverage = cross_coverage(errors, schema, promised=arguments.coverage)
    patients = frozenset(patient_fingerprint(film.group) for film in errors)
    calibrated = Calibrated(calibration, shapes, trust, patients)
    save_calibrated(calibrated, path, about | {"cross_coverage": coverage})
    print("\n".join(coverage_lines(coverage, each=True)))
    print(f"written to {path}")
