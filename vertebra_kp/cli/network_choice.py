"""Which network a command runs, and under which decoding: the same for every command that runs one."""

import argparse
from pathlib import Path

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.evaluation.runner import as_measured
from vertebra_kp.inference.predictor import Predictor, load
from vertebra_kp.inference.weights import find_network, name_of


def network_file(arguments: argparse.Namespace) -> Path:
    """The file of the network, whose calibration lies beside it. Raises CheckpointError where there is none."""
    return find_network(arguments.network)


def load_network(arguments: argparse.Namespace, schema: Schema | None = None) -> Predictor:
    """The network as it was trained; raises UserError where it cannot be used, or knows another ``schema``."""
    more = vars(arguments)
    predictor = load(
        network_file(arguments), arguments.device, members=more.get("ensemble", ()), refine=more.get("refine")
    )
    if schema is not None and predictor.schema != schema:
        raise UserError(
            f"{arguments.network} knows {predictor.schema.name}, the labels are of {schema.name}; "
            "name another network"
        )
    return predictor


def as_asked(predictor: Predictor, arguments: argparse.Namespace) -> Predictor:
    """The network under the decoding and inference that the arguments ask for."""
    flip = vars(arguments).get("flip")
    overrides = [*arguments.overrides, *([] if flip is None else [f"inference.flip={str(flip).lower()}"])]
    config = as_measured(predictor.config, overrides)
    return Predictor(predictor.network, config, predictor.step, predictor.refiner)


def choose_network(arguments: argparse.Namespace, schema: Schema | None = None) -> Predictor:
    """Both of the above."""
    return as_asked(load_network(arguments, schema), arguments)


def about_network(arguments: argparse.Namespace) -> dict[str, object]:
    """What results say of the network that they come from."""
    return {
        "checkpoint": name_of(network_file(arguments)),
        "ensemble": list(arguments.ensemble),
        "refine": arguments.refine,
    }
