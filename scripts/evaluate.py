"""Measure a checkpoint on labelled films, in the films' own pixels; writes JSON, CSV and the worst films."""

import argparse
import sys
from pathlib import Path

import cv2

from vertebra_kp.cli.command_line import add_set_argument, exit_code
from vertebra_kp.cli.film_choice import add_film_arguments, check_film_arguments, choose_films
from vertebra_kp.cli.network_choice import about_network, add_network_arguments, choose_network
from vertebra_kp.core.files import write_json
from vertebra_kp.core.provenance import code_version
from vertebra_kp.data.splits import split_hash
from vertebra_kp.evaluation.console import summary_lines
from vertebra_kp.evaluation.runner import as_measured, evaluate_films
from vertebra_kp.evaluation.shape_check import shape_figures
from vertebra_kp.evaluation.store import FILE as EVALUATION
from vertebra_kp.evaluation.store import evaluation_of, save_evaluation
from vertebra_kp.evaluation.summary import summary_of, views_of, write_film_rows
from vertebra_kp.evaluation.uncertainty.calibration import errors_of
from vertebra_kp.evaluation.uncertainty.coverage import coverage
from vertebra_kp.evaluation.uncertainty.store import find_calibrated
from vertebra_kp.inference.overlays import film_grid, film_panel
from vertebra_kp.inference.predictions import FilmPrediction, write_predictions
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.models.device import hardware


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_network_arguments(parser)
    add_film_arguments(parser, seed=2_000_003, number=200)
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the prediction of the mirrored film; default: inference.flip of the training",
    )
    add_set_argument(parser, "measure under other settings of decoding and inference, such as codec.decode=dark")
    parser.add_argument(
        "--calibration",
        type=Path,
        help="whose regions and intervals are judged on these films; default: calibration.json of the run",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    check_film_arguments(parser, arguments)
    return arguments


def measure(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    predictor = choose_network(arguments)
    schema, network = predictor.schema, predictor.network
    flip = [] if arguments.flip is None else [f"inference.flip={str(arguments.flip).lower()}"]
    config = as_measured(predictor.config, [*arguments.overrides, *flip])
    arguments, films = choose_films(arguments, config, predictor.film_size)
    measured_as = Predictor(network, config, predictor.step, predictor.refiner)
    calibrated = find_calibrated(arguments.calibration, arguments.checkpoint, schema, measured_as.mark)
    evaluated = evaluate_films(network, config, films, predictor.refiner, progress=True)
    summary = summary_of(evaluated, schema, bootstrap=1000)
    scores = None
    if calibrated is not None:
        errors = [errors_of(item.result, schema) for item in evaluated]
        others = calibrated.of_others(errors)
        if len(others) < len(errors):
            print(f"note: coverage is judged on {len(others)} films, the others' patients made the calibration")
        if others:
            summary["coverage"] = coverage(others, schema, calibrated.calibration)
        summary["shape"] = shape_figures(evaluated, calibrated)
        scores = [calibrated.ood_score(item.prediction) for item in evaluated]
    about = {
        **about_network(arguments),
        "mark": measured_as.mark,
        "step": predictor.step,
        "films_identity": films.identity,
        "source": arguments.source,
        "split": arguments.split,
        "split_file_sha256": split_hash(arguments.split_file) if arguments.split else None,
        "stored_order": arguments.stored_order,
        "codec": config.codec.model_dump(),
        "flip": config.inference.flip,
        "repair_file": arguments.repair_file,
        "config": predictor.config.model_dump(mode="json"),
        "hardware": hardware(next(network.parameters()).device),
        "version": code_version(),
    }
    write_json(about | summary, out / "metrics.json")
    write_film_rows(evaluated, out / "films.csv")
    save_evaluation(evaluation_of(schema, evaluated, films, scores), out / EVALUATION)
    predictions = [FilmPrediction(item.labels.file, item.result.size, item.prediction) for item in evaluated]
    write_predictions(predictions, schema, out)
    worst = views_of(network, config, films, evaluated, worst=True)
    picture = film_grid([film_panel(view, schema) for view in worst], columns=2)
    cv2.imwrite(str(out / "worst_films.png"), picture[..., ::-1])
    print("\n".join(summary_lines(summary)))
    written = ("metrics.json", "films.csv", EVALUATION, "predictions.json", "predictions.csv", "worst_films.png")
    print(f"written to {out}: {', '.join(written)}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: measure(parse_arguments())))
