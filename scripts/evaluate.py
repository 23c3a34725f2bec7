"""Measure a checkpoint on labelled films, in the films' own pixels; writes JSON, CSV and the worst films."""

import argparse
import sys
from pathlib import Path

import cv2

from vertebra_kp.calibrated import find_calibrated
from vertebra_kp.classification import REFERENCE, REFERENCE_FROM, TARGETS
from vertebra_kp.command_line import exit_code
from vertebra_kp.data.splits import split_hash
from vertebra_kp.evaluate import as_measured, evaluate_films
from vertebra_kp.evaluation import FILE as EVALUATION
from vertebra_kp.evaluation import save_evaluation
from vertebra_kp.film_choice import add_film_arguments, check_film_arguments, choose_films
from vertebra_kp.predict import Predictor, load
from vertebra_kp.predictions import FilmPrediction, write_predictions
from vertebra_kp.provenance import code_version, hardware
from vertebra_kp.run_folder import write_json
from vertebra_kp.selection import summary_of, views_of, write_film_rows
from vertebra_kp.shape_check import shape_figures
from vertebra_kp.uncertainty.calibration import errors_of
from vertebra_kp.uncertainty.coverage import coverage, coverage_lines
from vertebra_kp.visualise import film_grid, film_panel


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    parser.add_argument(
        "--ensemble", type=Path, nargs="+", default=[], help="checkpoints whose heatmaps are averaged with it"
    )
    add_film_arguments(parser, seed=2_000_003, number=200)
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the prediction of the mirrored film; default: inference.flip of the training",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="a.b=c",
        help="measure under other settings of decoding and inference, such as codec.decode=dark",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        help="whose regions and intervals are judged on these films; default: calibration.json of the run",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    check_film_arguments(parser, arguments)
    return arguments


def print_summary(summary: dict) -> None:
    for name in (
        "films",
        "mre_px",
        "median_px",
        "mre_mm",
        "mre_percent_diagonal",
        "level_shift_rate",
        "presence_precision",
        "presence_recall",
        "cobb_mae_deg",
        "smape_published",
        "smape_per_angle",
    ):
        value, interval = summary.get(name), summary.get(f"{name}_ci95")
        if value is not None:
            print(f"  {name:<24}{_short(value)}" + (f"   95 % {_short(interval)}" if interval else ""))
    if "coverage" in summary:
        print("\n".join(coverage_lines(summary["coverage"], each=False)))
        print_shape(summary["shape"])
    told = [target for target in TARGETS if target in summary]
    for target in told:
        figures = {name: value for name, value in summary[target].items() if isinstance(value, float)}
        print(f"  {target:<24}{_named(figures)}   {_named(summary[target]['counts'])}")
    if told:
        print(f"  {'for reference':<24}{_named(REFERENCE)}   {REFERENCE_FROM}")


def print_shape(told: dict) -> None:
    for name in ("mre_px", "median_px"):
        without, corrected = told[name]
        print(f"  {'shape ' + name:<24}{_short(without)} as predicted, {_short(corrected)} corrected")
    print(f"  {'shape flags':<24}{told['flagged']} corners", end="")
    print(f", median error {_short(told['flagged_median_px'])} px, others {_short(told['other_median_px'])} px")


def _named(figures: dict) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measure(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    predictor = load(arguments.checkpoint, arguments.device, members=arguments.ensemble)
    schema, network = predictor.schema, predictor.network
    flip = [] if arguments.flip is None else [f"inference.flip={str(arguments.flip).lower()}"]
    config = as_measured(predictor.config, [*arguments.overrides, *flip])
    arguments, films = choose_films(arguments, config)
    measured_as = Predictor(network, config, predictor.step)
    calibrated = find_calibrated(arguments.calibration, arguments.checkpoint, schema, measured_as.mark)
    if calibrated is not None and calibrated.films_identity == films.identity:
        print("note: the calibration was made on these very films: its coverage is not judged on them")
        calibrated = None
    evaluated = evaluate_films(network, config, films, progress=True)
    summary = summary_of(evaluated, schema, bootstrap=1000)
    distrust = None
    if calibrated is not None:
        errors = [errors_of(item.result, schema) for item in evaluated]
        summary["coverage"] = coverage(errors, schema, calibrated.calibration)
        summary["shape"] = shape_figures(evaluated, calibrated)
        distrust = [calibrated.distrust(item.prediction) for item in evaluated]
    about = {
        "checkpoint": str(arguments.checkpoint),
        "ensemble": [str(path) for path in arguments.ensemble],
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
    save_evaluation(out / EVALUATION, schema, evaluated, films, distrust)
    predictions = [FilmPrediction(item.labels.file, item.result.size, item.prediction) for item in evaluated]
    write_predictions(predictions, schema, out)
    worst = views_of(network, config, films, evaluated, worst=True)
    picture = film_grid([film_panel(view, schema) for view in worst], columns=2)
    cv2.imwrite(str(out / "worst_films.png"), picture[..., ::-1])
    print_summary(summary)
    written = ("metrics.json", "films.csv", EVALUATION, "predictions.json", "predictions.csv", "worst_films.png")
    print(f"written to {out}: {', '.join(written)}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: measure(parse_arguments())))
