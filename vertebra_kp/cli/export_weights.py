"""The command export-weights: a trained network as one small file to give away."""

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import SpineConfig, is_spine
from vertebra_kp.core.provenance import code_version
from vertebra_kp.evaluation.runner import as_measured
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.weights import SUFFIX, Stage, find_network, is_weights, load_weights, save_weights


def run(arguments: argparse.Namespace) -> None:
    path: Path = arguments.output_file
    if path.suffix != SUFFIX:
        raise UsageError(f"--output-file {path}: must end in {SUFFIX}")
    stages = [stage_of(arguments.network, arguments.overrides)]
    if arguments.refine:
        stages.append(stage_of(arguments.refine, []))
    digest = save_weights(stages, path, {"about": arguments.about, "version": code_version()})
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, SHA-256 {digest}")


def stage_of(name_or_path: str, overrides: Sequence[str]) -> Stage:
    """The network of a checkpoint, or the last stage of a file of weights, without the places of this machine."""
    path = find_network(name_or_path)
    if is_weights(path):
        return load_weights(path)[-1]
    checkpoint = load_checkpoint(path)
    if is_spine(checkpoint.config):
        if overrides:
            raise UsageError(f"--set {overrides[0]}: a spine network has nothing to set; leave it out")
        spine = SpineConfig.model_validate(checkpoint.config, strict=False).model_dump(mode="json")
        spine["sources"] = [source | {"root": None} for source in spine["sources"]]
        spine["train"] |= {"start_from": None, "start_parts": None}
        return Stage(without_places(spine), checkpoint.weights, checkpoint.step)
    config = as_measured(Config.model_validate(checkpoint.config, strict=False), overrides).model_dump(mode="json")
    config["data"] |= {"root": None, "cache": None, "shards": None}
    config["train"] |= {"start_from": None, "start_parts": None}
    return Stage(without_places(config), checkpoint.weights, checkpoint.step)


def without_places(value: Any) -> Any:
    """A config, as plain data, with the last name of every absolute path: nothing of a machine."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name
    return value
