"""The command export-weights: a trained network as one small file to give away."""

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.measured import as_measured
from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, sources_kind
from vertebra_kp.core.provenance import code_version
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.network_file import SUFFIX, find_network, is_weights
from vertebra_kp.inference.weights import Stage, load_weights, save_weights


def run(arguments: argparse.Namespace) -> None:
    path: Path = arguments.output_file
    if path.suffix != SUFFIX:
        raise UsageError(f"--output-file {path}: must end in {SUFFIX}")
    stages = [stage_of(arguments.network, arguments.overrides)]
    if arguments.refine:
        stages.append(stage_of(arguments.refine, [], None))
    stages += [stage_of(levels, [], LevelConfig) for levels in arguments.levels]
    digest = save_weights(stages, path, {"about": arguments.about, "version": code_version()})
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, SHA-256 {digest}")


ANY = object()


def stage_of(name_or_path: str, overrides: Sequence[str], kind: object = ANY) -> Stage:
    """The network of a checkpoint, or of a file of weights its first stage, without the places of this machine.

    ``kind`` asks for a stage of that kind of config (as ``sources_kind``), the last one in a file of weights.
    Raises UsageError where there is none.
    """
    path = find_network(name_or_path)
    if is_weights(path):
        stages = load_weights(path)
        of_kind = stages[:1] if kind is ANY else [s for s in stages if sources_kind(s.config) == kind][-1:]
        if not of_kind:
            raise UsageError(f"{name_or_path}: has no network of that kind; name another")
        return of_kind[0]
    checkpoint = load_checkpoint(path)
    if kind is not ANY and sources_kind(checkpoint.config) != kind:
        raise UsageError(f"{name_or_path}: has no network of that kind; name another")
    if several := sources_kind(checkpoint.config):
        if overrides:
            raise UsageError(
                f"--set {overrides[0]}: a network of several sources has nothing to set; leave it out"
            )
        config = several.model_validate(checkpoint.config, strict=False).model_dump(mode="json")
        config["sources"] = [source | {"root": None} for source in config["sources"]]
        config["train"] |= {"start_from": None, "start_parts": None}
        return Stage(without_places(config), checkpoint.weights, checkpoint.step)
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
