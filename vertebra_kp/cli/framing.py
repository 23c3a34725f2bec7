"""The command framing: what a spine network finds and names on each source of a config."""

import argparse

from tqdm import tqdm

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.network_choice import load_network
from vertebra_kp.config.io import find_config, load_job
from vertebra_kp.config.spine import SpineConfig
from vertebra_kp.core.anatomy import VIEWS
from vertebra_kp.core.files import write_csv, write_json
from vertebra_kp.data.spine_films import vertebrae_of
from vertebra_kp.data.spine_sources import deal
from vertebra_kp.evaluation.framing import FramingResult, framing_figures, framing_result, framing_rows
from vertebra_kp.inference.spine import SpinePredictor


def run(arguments: argparse.Namespace) -> None:
    config = load_job(find_config(arguments.config), arguments.overrides)
    if not isinstance(config, SpineConfig):
        raise UsageError(
            f"--config {arguments.config}: is not the config of a spine network; name one such as ap_spine"
        )
    predictor = load_network(arguments)
    schema = predictor.schema
    trained = predictor.spine_config if isinstance(predictor, SpinePredictor) else None
    if trained is not None and trained.name == config.name and trained.fold != config.fold:
        if trained.fold is None:
            raise UsageError("--network: all images of this config trained it; none is left to measure it on")
        raise UsageError(f"the network was trained for fold {trained.fold}; give --set fold={trained.fold}")
    figures: dict[str, dict[str, float | int | None]] = {}
    for source in config.sources:
        if source.root is None or source.schema_of_labels.view != schema.view:
            continue
        name = f"{source.source} {source.anatomy}"
        _, records = deal(source, config.fold)
        marked = [(record, vertebrae_of(record, source.schema_of_labels)) for record in records]
        marked = [(record, true) for record, true in marked if len(true.centres) > 1]
        results: list[FramingResult] = []
        predictions = predictor.predict_many(record.image_path for record, _ in marked)
        for (record, true), prediction in zip(marked, tqdm(predictions, name, len(marked)), strict=True):
            view = VIEWS.index(record.view or schema.view)
            results.append(framing_result(record.id, true, view, prediction, schema))
        if not results:
            continue
        figures[name] = framing_figures(results)
        rows = framing_rows(results)
        write_csv(tuple(rows[0]), rows, arguments.out / f"{source.source}_{source.anatomy}.csv")
        print(
            f"{name}: {', '.join(_told(key, value) for key, value in figures[name].items() if value is not None)}"
        )
    if not figures:
        raise UsageError(f"--config: no source of {schema.view} images validates; set sources.0.root and so on")
    write_json(figures, arguments.out / "framing.json")


def _told(name: str, value: float | int) -> str:
    return f"{name} {value}" if isinstance(value, int) else f"{name} {value:.3f}"
