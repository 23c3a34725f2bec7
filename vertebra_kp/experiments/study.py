"""What a study asks for: ``study.yaml``, and the runs that follow from it."""

import hashlib
import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from vertebra_kp.config.differences import MAY_DIFFER, differences, flat_config
from vertebra_kp.config.io import find_config, load_config, read_yaml
from vertebra_kp.config.measured import as_measured
from vertebra_kp.config.schema import Config
from vertebra_kp.config.section import Name, Positive, Section
from vertebra_kp.core.errors import UserError
from vertebra_kp.training.run_folder import RunFolder

NOBODY = "none"  # a config's name where only its settings count


class Budget(Section):
    """What one run may cost, and where; a run that trained longer is marked in the table."""

    minutes: Positive
    hardware: str


class StudyFile(Section):
    """What ``study.yaml`` may say; ``overrides``, ``variants`` and ``measured`` are lists of ``a.b=c``."""

    base: Path
    """File of the config, relative to the study, or the name of one that comes with the package."""
    overrides: list[str] = Field([])
    seeds: list[int] = Field(min_length=1)
    budget: Budget | None = None
    baseline: str
    variants: dict[Name, list[str]] = Field(min_length=1)
    measured: dict[Name, list[str]] = Field(default={})
    """Train nothing: the baseline's checkpoint of the same seed, measured under other settings."""


@dataclass(frozen=True)
class Settings:
    """What decides a run's figures: its config and, where it only measures, the config that was trained.

    Those of planned runs and of a ledger have the name NOBODY.
    """

    config: Config
    trained: Config | None = None

    @property
    def hash(self) -> str:
        """12 hex digits; neither the name counts nor what changes no weight (``run_folder.MAY_DIFFER``)."""
        both = [None if config is None else flat_config(config) for config in (self.config, self.trained)]
        counted = [
            one and {key: value for key, value in one.items() if key != "name" and not key.startswith(MAY_DIFFER)}
            for one in both
        ]
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]

    def gives_the_figures_of(self, other: "Settings") -> bool:
        """Whether the figures are the same: a hash leaves out where the films are, and there others may lie."""
        places = [(config.data.root, config.data.shards) for config in (self.config, other.config)]
        return self.hash == other.hash and places[0] == places[1]

    def differences(self, other: "Settings") -> dict[str, tuple[Any, Any]]:
        """Settings that differ from those of ``other``, as dotted keys with both values."""
        return differences(self.config, other.config)

    def to_json(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        if self.trained is None:
            return config
        return {"trained": self.trained.model_dump(mode="json"), "measured": config}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Settings | None":
        """None where the settings are of another version of vertebra_kp."""
        both = (value["measured"], value["trained"]) if "trained" in value else (value,)
        try:
            return cls(*(Config.model_validate_json(json.dumps(one), strict=True) for one in both))
        except ValueError:
            return None


@dataclass(frozen=True)
class Planned:
    """One run of a study: what it is called, how it is made, and where it stands."""

    variant: str
    seed: int
    base: Path
    overrides: list[str]
    run_dir: Path
    settings: Settings
    checkpoint: Path | None = None
    """What a run that trains nothing measures."""

    @property
    def key(self) -> tuple[str, int]:
        return self.variant, self.seed

    @property
    def trains(self) -> bool:
        return self.checkpoint is None

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    folder: Path
    file: StudyFile
    planned: list[Planned]
    """Seed by seed: an interrupted study has compared something. What only measures comes last."""

    @property
    def names(self) -> list[str]:
        return [*self.file.variants, *self.file.measured]

    @property
    def comparisons(self) -> int:
        return len(self.names) - 1

    @property
    def run_folders(self) -> Path:
        return self.folder / "runs"

    def run(self, variant: str, seed: int | str) -> Planned:
        """Raises UserError where the study has no such run."""
        for run in self.planned:
            if (run.variant, str(run.seed)) == (variant, str(seed)):
                return run
        raise UserError(
            f"{self.folder}: no run of variant {variant} with seed {seed}; variants: {', '.join(self.names)}, "
            f"seeds: {', '.join(map(str, self.file.seeds))}"
        )


def read_study(folder: Path) -> Study:
    """Raises UserError when ``study.yaml`` is missing or wrong, or when two of its variants are the same."""
    path = folder / "study.yaml"
    try:
        file = StudyFile.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: {problems}") from error
    if file.baseline not in file.variants:
        raise UserError(f"{path}: baseline {file.baseline} is none of the variants {list(file.variants)}")
    if len(file.variants) + len(file.measured) < 2:
        raise UserError(f"{path}: {file.baseline} is the only variant; add one under variants or measured")
    if twice := file.variants.keys() & file.measured.keys():
        raise UserError(f"{path}: {', '.join(sorted(twice))} is in variants and in measured; rename one")
    if len(set(file.seeds)) < len(file.seeds):
        raise UserError(f"{path}: seeds {file.seeds} names one twice; a run counts once")
    planned = trained_runs(folder, file, find_config(file.base, folder).resolve())
    study = Study(folder, file, planned + _measured(folder, file, planned))
    _refuse_equals(study, path)
    return study


def trained_runs(folder: Path, file: StudyFile, base: Path) -> list[Planned]:
    """Every variant with every seed; ``base`` is the config's file."""
    planned = []
    for seed in file.seeds:
        for variant, own in file.variants.items():
            name = f"{variant}-{seed}"
            overrides = [*file.overrides, *own, f"train.seed={seed}", f"name={name}"]
            settings = Settings(load_config(base, overrides).model_copy(update={"name": NOBODY}))
            planned.append(Planned(variant, seed, base, overrides, folder / "runs" / name, settings))
    return planned


def _measured(folder: Path, file: StudyFile, trained: list[Planned]) -> list[Planned]:
    planned = []
    for run in (one for one in trained if one.variant == file.baseline):
        for variant, overrides in file.measured.items():
            try:
                settings = Settings(as_measured(run.settings.config, overrides), run.settings.config)
            except UserError as error:
                raise UserError(f"{folder / 'study.yaml'}: measured.{variant}: {error}") from error
            run_dir, checkpoint = folder / "runs" / f"{variant}-{run.seed}", RunFolder(run.run_dir).best
            planned.append(Planned(variant, run.seed, run.base, overrides, run_dir, settings, checkpoint))
    return planned


def _refuse_equals(study: Study, path: Path) -> None:
    """Two variants of the same settings would compare nothing."""
    first_seed = [run for run in study.planned if run.seed == study.file.seeds[0]]
    for one, other in combinations(first_seed, 2):
        if not one.settings.differences(other.settings):
            known, twin = (other, one) if other.variant == study.file.baseline else (one, other)
            role = "the baseline" if known.variant == study.file.baseline else "variant"
            raise UserError(
                f"{path}: variant {twin.variant} equals {role} {known.variant}; it would compare nothing"
            )
