"""A study: variants of one config over seeds, one row of figures per finished run, and their comparison."""

import csv
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vertebra_kp.config import Config
from vertebra_kp.config_io import load_config, read_yaml
from vertebra_kp.errors import UserError

COLUMNS = ("variant", "seed", "mre_px", "median_px", "level_shift_rate", "steps", "seconds", "images_per_second")


class StudyFile(BaseModel):
    """What ``study.yaml`` may say; ``overrides`` and variants are lists of ``a.b=c``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Path
    overrides: list[str] = []
    seeds: list[int] = Field(min_length=1)
    baseline: str
    variants: dict[str, list[str]] = Field(min_length=2)


@dataclass(frozen=True)
class Planned:
    """One run of a study, and where it stands."""

    variant: str
    seed: int
    overrides: list[str]
    run_dir: Path

    def config(self, base: Path) -> Config:
        return load_config(base, self.overrides)


@dataclass(frozen=True)
class Study:
    folder: Path
    file: StudyFile

    @property
    def base(self) -> Path:
        return (self.folder / self.file.base).resolve()

    @property
    def results(self) -> Path:
        return self.folder / "results.csv"

    def planned(self) -> Iterator[Planned]:
        """All runs, seed by seed: an interrupted study has compared something."""
        for seed in self.file.seeds:
            for variant, overrides in self.file.variants.items():
                name = f"{variant}-{seed}"
                everything = [*self.file.overrides, *overrides, f"train.seed={seed}", f"name={name}"]
                yield Planned(variant, seed, everything, self.folder / "runs" / name)

    def finished(self) -> list[dict[str, str]]:
        if not self.results.exists():
            return []
        with self.results.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def missing(self) -> list[Planned]:
        done = {(row["variant"], int(row["seed"])) for row in self.finished()}
        return [run for run in self.planned() if (run.variant, run.seed) not in done]

    def record(self, run: Planned) -> None:
        """Append the finished run's row; its ``metrics.json`` must stand in the run's folder."""
        report = json.loads((run.run_dir / "metrics.json").read_text(encoding="utf-8"))
        figures, films = report["validation"], run.config(self.base).train.batch_size
        row = {
            "variant": run.variant,
            "seed": run.seed,
            "mre_px": round(figures["mre_px"], 4),
            "median_px": round(figures["median_px"], 4),
            "level_shift_rate": figures["level_shift_rate"],
            "steps": report["steps"],
            "seconds": report["training_seconds"],
            "images_per_second": round(report["steps"] * films / report["training_seconds"], 2),
        }
        new = not self.results.exists()
        with self.results.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)


def read_study(folder: Path) -> Study:
    """Raises UserError when ``study.yaml`` is missing, wrong, or has a variant that equals the baseline."""
    path = folder / "study.yaml"
    try:
        file = StudyFile.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: {problems}") from error
    if file.baseline not in file.variants:
        raise UserError(f"{path}: baseline {file.baseline} is none of the variants {list(file.variants)}")
    study = Study(folder, file)
    first_seed = {run.variant: run for run in study.planned() if run.seed == file.seeds[0]}
    configs = {
        name: run.config(study.base).model_copy(update={"name": "same"}) for name, run in first_seed.items()
    }
    for name, config in configs.items():
        if name != file.baseline and config == configs[file.baseline]:
            raise UserError(
                f"{path}: variant {name} equals the baseline {file.baseline}; it would compare nothing"
            )
    return study


def table(study: Study) -> str:
    """Markdown: mean and spread over seeds, and the difference to the baseline paired by seed."""
    rows = study.finished()
    by_variant = {
        variant: {int(row["seed"]): row for row in rows if row["variant"] == variant}
        for variant in study.file.variants
    }
    baseline = by_variant[study.file.baseline]
    lines = [
        "| variant | seeds | mean radial error, px | difference to baseline (95 %) | level shifts | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for variant, runs in by_variant.items():
        if not runs:
            continue
        errors = [float(row["mre_px"]) for row in runs.values()]
        differences = [
            float(row["mre_px"]) - float(baseline[seed]["mre_px"])
            for seed, row in runs.items()
            if seed in baseline
        ]
        difference = "baseline" if variant == study.file.baseline else _interval(differences)
        shifts = statistics.mean(float(row["level_shift_rate"]) for row in runs.values())
        seconds = statistics.mean(float(row["seconds"]) for row in runs.values())
        spread = statistics.stdev(errors) if len(errors) > 1 else math.nan
        lines.append(
            f"| {variant} | {len(runs)} | {statistics.mean(errors):.3f} ± {spread:.3f} | {difference} "
            f"| {shifts:.3f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def _interval(differences: list[float]) -> str:
    """Mean and Student's t interval of differences paired by seed."""
    from scipy import stats

    if len(differences) < 2:
        return "one seed"
    mean, error = float(np.mean(differences)), float(stats.sem(differences))
    low, high = stats.t.interval(0.95, len(differences) - 1, mean, error) if error else (mean, mean)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
