"""Which network a command runs, and under which decoding: the same for every command that runs one."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.measured import as_measured
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.provenance import code_version
from vertebra_kp.data.films import Films
from vertebra_kp.evaluation.uncertainty.store import Calibrated, find_calibrated
from vertebra_kp.inference.exported import Backend, cache_folder, load_exported
from vertebra_kp.inference.network_file import ABOUT, find_network, is_exported, name_of, names_sources
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.spine import SpinePredictor

if TYPE_CHECKING:
    from vertebra_kp.evaluation.runner import Evaluated


def network_file(arguments: argparse.Namespace) -> Path:
    """The file of the network, whose calibration lies beside it. Raises CheckpointError where there is none."""
    folder = Path(arguments.network)
    return folder / ABOUT if is_exported(folder) else find_network(arguments.network)


def load_network(arguments: argparse.Namespace, schema: Schema | None = None) -> Predictor:
    """The network as it was trained; raises UserError where it cannot be used, or knows another ``schema``."""
    predictor = _loaded(arguments)
    if schema is not None and predictor.schema != schema:
        raise UserError(
            f"{arguments.network} knows {predictor.schema.name}, the labels are of {schema.name}; "
            "name another network"
        )
    return predictor


def _loaded(arguments: argparse.Namespace) -> Predictor:
    """By torch, or exported where the arguments ask for a backend."""
    asked: str = vars(arguments).get("backend", "torch")
    backend: Backend = "openvino" if asked == "openvino" else "onnx"
    if is_exported(Path(arguments.network)):
        return load_exported(Path(arguments.network), backend)
    if asked == "torch" or (asked == "auto" and not _runs_exported(arguments)):
        return _by_torch(arguments)
    refine = vars(arguments).get("refine")
    folder = cache_folder([network_file(arguments), *([find_network(refine)] if refine else [])])
    if not is_exported(folder):
        from vertebra_kp.inference.export import export_onnx

        predictor = _by_torch(arguments)
        if not isinstance(predictor, SpinePredictor):
            raise UsageError(f"--backend {backend}: takes spine networks such as ap-spine; leave it out")
        try:
            export_onnx(predictor, folder)
        except OSError as error:
            print(f"note: the network is run by torch, {folder} cannot be written ({error.strerror})")
            return predictor
    return load_exported(folder, backend)


def _by_torch(arguments: argparse.Namespace) -> Predictor:
    from vertebra_kp.inference.loading import load  # here: torch takes seconds to import

    more = vars(arguments)
    return load(
        network_file(arguments), arguments.device, members=more.get("ensemble", ()), refine=more.get("refine")
    )


def _runs_exported(arguments: argparse.Namespace) -> bool:
    """Whether a network runs faster exported: a spine network on a machine without a GPU."""
    more = vars(arguments)
    on_gpu = arguments.device == "cuda" or (arguments.device is None and shutil.which("nvidia-smi") is not None)
    return not on_gpu and not more.get("ensemble") and names_sources(network_file(arguments))


def as_asked(predictor: Predictor, arguments: argparse.Namespace) -> Predictor:
    """The network under the decoding and inference that the arguments ask for."""
    flip = vars(arguments).get("flip")
    overrides = [*arguments.overrides, *([] if flip is None else [f"inference.flip={str(flip).lower()}"])]
    config = as_measured(predictor.config, overrides)
    return predictor.with_config(config)


def choose_network(arguments: argparse.Namespace, schema: Schema | None = None) -> Predictor:
    """Both of the above."""
    return as_asked(load_network(arguments, schema), arguments)


def check_own_images(predictor: Predictor) -> None:
    """Raises UserError for a spine network without a source whose split file tells its images apart.

    Its data config is that of synthetic images, which stand for none that it was trained on.
    """
    if isinstance(predictor, SpinePredictor) and predictor.config.data.source == "phantom":
        raise UserError(
            f"{predictor.config.name}: its first source has no split file, so its own images are not known here; "
            "measure it with the command framing"
        )


def find_calibration(arguments: argparse.Namespace, predictor: Predictor) -> Calibrated | None:
    """The calibration that was named, else the one beside the network; raises as ``find_calibrated``."""
    return find_calibrated(arguments.calibration, network_file(arguments), predictor.schema, predictor.fingerprint)


def say_training_images(
    arguments: argparse.Namespace, predictor: Predictor, evaluated: Sequence["Evaluated"]
) -> int:
    """How many of the images have trained the network, and a line that says so where there are any."""
    from vertebra_kp.evaluation.seen import training_images  # here: data sets take time to import

    ids = [item.id for item in evaluated]
    seen = training_images(predictor.configs, arguments.source, arguments.root, ids)
    if seen:
        print(f"note: {seen} of these {len(ids)} images trained the network: on new ones its errors are larger")
    return seen


def about_measurement(arguments: argparse.Namespace, predictor: Predictor, films: Films) -> dict[str, object]:
    """What results say of the network and the films that they come from."""
    return {
        "checkpoint": name_of(network_file(arguments)),
        "ensemble": list(arguments.ensemble),
        "refine": arguments.refine,
        "mark": predictor.fingerprint,
        "step": predictor.step,
        "films_identity": films.identity,
        "source": arguments.source,
        "split": arguments.split,
        "version": code_version(),
    }
