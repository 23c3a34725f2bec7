"""The command export: a spine network as ONNX graphs."""

import argparse
import shutil

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.evaluation.uncertainty.store import FILE as CALIBRATION
from vertebra_kp.inference.export import export_onnx
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.network_file import find_network
from vertebra_kp.inference.spine import SpinePredictor


def run(arguments: argparse.Namespace) -> None:
    network = find_network(arguments.network)
    predictor = load(network, "cpu", refine=arguments.refine)
    if not isinstance(predictor, SpinePredictor):
        raise UsageError(f"--network {arguments.network}: spine networks are exported, such as ap-spine; name one")
    export_onnx(predictor, arguments.out)
    calibration = network.with_name(CALIBRATION)
    if calibration.is_file() and not arguments.refine:
        shutil.copyfile(calibration, arguments.out / CALIBRATION)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{arguments.out}: {size / 2**20:.1f} MiB; use it as --network")
