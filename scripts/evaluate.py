"""Measure a checkpoint on labelled films, in the films' own pixels; writes JSON, CSV and the worst films."""

import argparse
import logging
import sys
from pathlib import Path

import cv2

from vertebra_kp.classification import REFERENCE, REFERENCE_FROM, TARGETS
from vertebra_kp.config import DataConfig
from vertebra_kp.data.datasets import films_of_source, phantom_films, validation_films
from vertebra_kp.data.films import Films
from vertebra_kp.data.phantom import PRESETS
from vertebra_kp.data.sources import SOURCES
from vertebra_kp.data.splits import split_hash
from vertebra_kp.errors import UserError
from vertebra_kp.evaluate import as_measured, evaluate_films
from vertebra_kp.predict import load
from vertebra_kp.predictions import FilmPrediction, write_predictions
from vertebra_kp.provenance import code_version, hardware
from vertebra_kp.run_folder import write_json
from vertebra_kp.selection import summary_of, views_of, write_film_rows
from vertebra_kp.visualise import film_grid, film_panel

AASCE_TEST = "test"  # the data set's own part, not a split of the training part


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    films = parser.add_mutually_exclusive_group(required=True)
    films.add_argument("--source", choices=(*SOURCES, "phantom"))
    films.add_argument(
        "--validation", action="store_true", help="the films that validated the network while it was trained"
    )
    parser.add_argument("--root", type=Path, help="folder of the data set; default: where the network trained")
    parser.add_argument("--split", nargs="+", help="splits to take; AASCE also: test, the data set's own part")
    parser.add_argument("--split-file", help="default: the one the network trained with; for aasce the committed")
    parser.add_argument("--repair-file", help="repairs of labels; default: those the network trained with")
    parser.add_argument(
        "--stored-order",
        action=argparse.BooleanOptionalAction,
        help="aasce: labels as stored, T1 after L5 in 18 films; default: as the network was trained",
    )
    parser.add_argument("--preset", default="standard", choices=sorted(PRESETS), help="phantom")
    parser.add_argument("--seed", type=int, default=2_000_003, help="phantom: seed of the films")
    parser.add_argument("--films", type=int, default=200, help="phantom: how many films")
    parser.add_argument(
        "--other-view",
        type=float,
        help="phantom: share of films from the other side, lateral for AP; default: as the network was trained",
    )
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
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    if arguments.films < 1 or arguments.seed < 0:
        parser.error(
            f"--films {arguments.films} --seed {arguments.seed}: films must be 1 or more, the seed 0 or more"
        )
    if arguments.other_view is not None and not 0 <= arguments.other_view < 1:
        parser.error(f"--other-view {arguments.other_view}: must be 0 or more and below 1")
    if arguments.repair_file and (arguments.stored_order or arguments.split == [AASCE_TEST]):
        parser.error("--repair-file mends the labels of AASCE's training part; leave --stored-order or test out")
    return arguments


def as_trained(arguments: argparse.Namespace, data: DataConfig) -> argparse.Namespace:
    """The arguments, and what was not said as the network was trained, if it was trained on this source."""
    same_source = arguments.source == data.source
    committed = "aasce" if arguments.source == "aasce" else None
    trained = {
        "root": data.root if same_source else None,
        "split_file": data.split_file if same_source else committed,
        "repair_file": data.repair_file if same_source else None,
        "stored_order": data.stored_order and same_source,
        "other_view": data.phantom.other_view if same_source else 0.0,
        "cache": data.cache if same_source else None,
        "shards": data.shards if same_source and arguments.root is None else None,
    }
    if arguments.stored_order or arguments.split == [AASCE_TEST]:
        trained |= {"repair_file": None, "shards": None}  # they have other labels
    if arguments.repair_file:
        trained["shards"] = None  # a repair is made on the labels as they are stored
    said = {name: value for name, value in vars(arguments).items() if value is not None}
    return argparse.Namespace(**vars(arguments) | trained | said)


def films_of(arguments: argparse.Namespace, data: DataConfig) -> Films:
    schema = data.keypoint_schema
    if arguments.source == "phantom":
        return phantom_films(
            schema,
            arguments.preset,
            arguments.seed,
            arguments.films,
            data.input_size,
            other_view=arguments.other_view,
        )
    part, splits = None, arguments.split
    if arguments.source == "aasce" and splits == [AASCE_TEST]:
        part, splits = AASCE_TEST, None
    elif not splits and arguments.source == data.source:
        trained = ", ".join(data.train_splits)
        print(f"note: all labelled films, also those that may have trained the network ({trained}); see --split")
    if splits and arguments.split_file is None:
        raise UserError(f"--split {' '.join(splits)} needs --split-file FILE for source {arguments.source}")
    return films_of_source(
        arguments.source,
        arguments.root,
        schema,
        data.input_size,
        part=part,
        split_file=arguments.split_file,
        splits=splits,
        stored_order=arguments.stored_order,
        repair_file=arguments.repair_file,
        cache=arguments.cache,
        shards=arguments.shards,
    )


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
    told = [target for target in TARGETS if target in summary]
    for target in told:
        figures = {name: value for name, value in summary[target].items() if isinstance(value, float)}
        print(f"  {target:<24}{_named(figures)}   {_named(summary[target]['counts'])}")
    if told:
        print(f"  {'for reference':<24}{_named(REFERENCE)}   {REFERENCE_FROM}")


def _named(figures: dict) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        measure(arguments)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    predictor = load(arguments.checkpoint, arguments.device)
    schema, network = predictor.schema, predictor.network
    flip = [] if arguments.flip is None else [f"inference.flip={str(arguments.flip).lower()}"]
    config = as_measured(predictor.config, [*arguments.overrides, *flip])
    if arguments.validation:
        arguments.source, arguments.split = config.data.source, config.data.validation_splits
    arguments = as_trained(arguments, config.data)
    films = validation_films(config) if arguments.validation else films_of(arguments, config.data)
    evaluated = evaluate_films(network, config, films, progress=True)
    summary = summary_of(evaluated, schema, bootstrap=1000)
    about = {
        "checkpoint": str(arguments.checkpoint),
        "step": predictor.step,
        "films_identity": films.identity,
        "source": arguments.source,
        "split": arguments.split,
        "split_file_sha256": split_hash(arguments.split_file) if arguments.split else None,
        "stored_order": arguments.stored_order,
        "codec": config.codec.model_dump(),
        "flip": config.inference.flip,
        "repair_file": arguments.repair_file,
        "hardware": hardware(next(network.parameters()).device),
        "version": code_version(),
    }
    write_json(about | summary, out / "metrics.json")
    write_film_rows(evaluated, out / "films.csv")
    predictions = [FilmPrediction(item.labels.file, item.result.size, item.prediction) for item in evaluated]
    write_predictions(predictions, schema, out)
    worst = views_of(network, config, films, evaluated, worst=True)
    picture = film_grid([film_panel(view, schema) for view in worst], columns=2)
    cv2.imwrite(str(out / "worst_films.png"), picture[..., ::-1])
    print_summary(summary)
    print(f"written to {out}: metrics.json, films.csv, predictions.json, predictions.csv, worst_films.png")


if __name__ == "__main__":
    sys.exit(main())
