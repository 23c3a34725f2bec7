"""The command evaluate: a network measured on labelled films, in the films' own pixels."""

import argparse
from pathlib import Path

from vertebra_kp.cli.film_choice import choose_films
from vertebra_kp.cli.network_choice import (
    about_measurement,
    as_asked,
    check_own_images,
    find_calibration,
    load_network,
    say_training_images,
)
from vertebra_kp.core.files import write_image, write_json
from vertebra_kp.data.splits import split_hash
from vertebra_kp.evaluation.console import summary_lines
from vertebra_kp.evaluation.runner import evaluate_films
from vertebra_kp.evaluation.store import FILE as EVALUATION
from vertebra_kp.evaluation.store import evaluation_of, save_evaluation
from vertebra_kp.evaluation.summary import PICTURES, shape_figures, summary_of, worst_views, write_film_rows
from vertebra_kp.evaluation.uncertainty.calibration import errors_of
from vertebra_kp.evaluation.uncertainty.coverage import coverage
from vertebra_kp.inference.overlays import film_grid, film_panel
from vertebra_kp.inference.predictions import CSV_FILE, JSON_FILE, image_entry, write_predictions
from vertebra_kp.models.device import hardware


def run(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    trained = load_network(arguments)
    predictor = as_asked(trained, arguments)
    schema, config = predictor.schema, predictor.config
    if arguments.validation:
        check_own_images(predictor)
    calibrated = find_calibration(arguments, predictor)
    arguments, films = choose_films(arguments, config, predictor.film_size)
    about = about_measurement(arguments, predictor, films)
    evaluated = evaluate_films(predictor, films, shown=PICTURES, progress=True)
    seen = say_training_images(arguments, predictor, evaluated)
    summary = summary_of(evaluated, schema, bootstrap=1000)
    scores = None
    if calibrated is not None:
        errors = [errors_of(item, schema) for item in evaluated]
        others = calibrated.of_others(errors)
        if len(others) < len(errors):
            print(f"note: coverage is judged on {len(others)} images, the others' patients made the calibration")
        if others:
            summary["coverage"] = coverage(others, schema, calibrated.calibration)
        summary["shape"] = shape_figures(evaluated, calibrated)
        scores = [calibrated.ood_score(item.prediction) for item in evaluated]
    about |= {
        "split_file_sha256": split_hash(arguments.split_file) if arguments.split else None,
        "stored_order": arguments.stored_order,
        "codec": config.codec.model_dump(),
        "flip": predictor.mirrors,
        "repair_file": arguments.repair_file,
        "names": arguments.names,
        "config": trained.recipe,
        "hardware": hardware(predictor.device),
        "training_images": seen,
        "evaluation_sha256": save_evaluation(evaluation_of(schema, evaluated, films, scores), out / EVALUATION),
    }
    write_film_rows(evaluated, out / "films.csv")
    write_predictions([image_entry(item.prediction, schema) for item in evaluated], out)
    written = [EVALUATION, "films.csv", JSON_FILE, CSV_FILE]
    if worst := worst_views(evaluated):
        picture = film_grid([film_panel(view, schema) for view in worst], columns=2)
        write_image(picture, out / "worst_films.png")
        written.append("worst_films.png")
    write_json(about | summary, out / "metrics.json")  # last: where it is, everything is
    print("\n".join(summary_lines(summary)))
    print(f"written to {out}: {', '.join([*written, 'metrics.json'])}")
