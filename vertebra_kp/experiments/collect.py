"""Finished runs into a study's ledger: from their folders, or from a study beside it that has run the same."""

import os
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from typing_extensions import TypedDict  # of Python 3.11 pydantic takes no other

from vertebra_kp.config.io import ConfigError, load_config
from vertebra_kp.config.schema import NetworkConfig
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_json
from vertebra_kp.evaluation.metric_table import figures_for
from vertebra_kp.experiments.ledger import Entry, Key, Ledger, Row, read_rows
from vertebra_kp.experiments.study import Planned, Settings, Study
from vertebra_kp.models.describe import count_macs, count_parameters
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.run_folder import RunFolder

STALE = "stale"  # folder for rows and run folders that a study no longer asks for


def missing(study: Study) -> list[Planned]:
    done = {entry.key for entry in Ledger(study.folder).entries()}
    return [run for run in study.planned if run.key not in done]


def to_run(study: Study) -> list[Planned]:
    """What is missing, and the runs with a row whose checkpoint is to be measured, but is not on this disk."""
    without_row = missing(study)
    to_measure = {run.checkpoint for run in without_row if run.checkpoint and not run.checkpoint.is_file()}
    return [run for run in study.planned if run in without_row or RunFolder(run.run_dir).best in to_measure]


# --- from the run folder --------------------------------------------------------------------------------


def is_finished(run: Planned) -> bool:
    """Whether the run's folder holds a report of just these settings.

    What only measures is never taken for finished: it is quicker measured again than found out with what.
    """
    has_report = run.trains and RunFolder(run.run_dir).metrics.is_file()
    return has_report and _settings_in(run.run_dir) == run.settings.hash


def _settings_in(run_dir: Path) -> str | None:
    """Hash of the settings that a run folder was started with; None where there are none."""
    path = RunFolder(run_dir).config
    if not path.is_file():
        return None
    try:
        return Settings(load_config(path)).hash
    except ConfigError:
        return "of another version"


class _Trained(TypedDict):
    """What must stand in the report of a training; earlier versions wrote less beside it."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    validation: dict[str, Any]
    steps: int
    training_seconds: float


def collect(study: Study) -> list[Planned]:
    """Write down every run that is finished in its folder and has no row, or one of before settings were kept."""
    whole = {entry.key for entry in Ledger(study.folder).entries() if entry.row.get("config")}
    found = [run for run in study.planned if run.key not in whole and is_finished(run)]
    for run in found:
        record(study, run)
    return found


def record(study: Study, run: Planned) -> Row:
    """Write down a run whose folder holds its report; returns the row."""
    row = _row(run)
    rows = read_rows(RunFolder(run.run_dir).films)  # none where an earlier version has trained
    films = {film["id"]: round(float(film["mre_px"]), 3) if film["mre_px"] else None for film in rows}
    Ledger(study.folder).add(Entry(row, films, run.settings))
    return row


def _row(run: Planned) -> Row:
    report = read_json(
        RunFolder(run.run_dir).metrics, _Trained if run.trains else dict[str, Any], remedy="run it anew"
    )
    figures, config = (report["validation"] if run.trains else report), run.settings.config
    network, data, train = config.network.model_dump_json(), config.data, config.train
    parameters, macs = _cost(network, data.keypoint_schema, data.input_size)
    row: Row = {
        "variant": run.variant,
        "seed": run.seed,
        **{name: "" if it is None else round(it, 4) for name, it in figures_for("study", figures).items()},
        "parameters": parameters,
        "gmacs": round(macs * (1 + config.inference.flip) / 1e9, 4),  # a flip takes a second forward pass
        "hardware": _hardware(report.get("hardware")),
        "config": run.settings.hash,
        "version": report.get("version", ""),
    }
    if run.trains:
        steps, seconds = report["steps"], report["training_seconds"]
        films = steps * train.batch_size * train.accumulate
        row |= {
            "steps": steps,
            "seconds": seconds,
            "images_per_second": round(films / seconds, 2) if seconds else "",
            "peak_memory_mb": report.get("peak_memory_mb", ""),
        }
    return row


@lru_cache
def _cost(network: str, schema: Schema, input_size: tuple[int, int]) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one film's forward pass."""
    with torch.device("meta"):
        built = VertebraNetwork(NetworkConfig.model_validate_json(network), schema, load_weights=False)
    return count_parameters(built), count_macs(built, input_size)


def _hardware(report: dict[str, Any] | None) -> str:
    if report is None:
        return ""
    return report["name"] if report["device"] == "cuda" else f"{report['name']}, {report['threads']} threads"


# --- from a study beside it -----------------------------------------------------------------------------


def adopt(study: Study) -> list[tuple[Planned, Path]]:
    """Take over the missing runs that a study beside this one has finished; returns them with its folder.

    The settings must be the same, the seed among them. The version of the code need not be, as between the runs of
    one study: it stands in the row, and the table says where there is more than one.
    """
    open_runs, here, adopted = missing(study), study.folder.resolve(), []
    for folder in sorted(path.parent for path in here.parent.glob("*/study.yaml") if path.parent != here):
        for entry in Ledger(folder).entries() if open_runs else []:
            for run in list(open_runs):
                if entry.settings is not None and entry.settings.gives_the_figures_of(run.settings):
                    adopted.append((run, folder))
                    open_runs.remove(run)
                    _take_over(study, run, entry, folder)
    return adopted


def _take_over(study: Study, run: Planned, entry: Entry, folder: Path) -> None:
    row = entry.row | {"variant": run.variant, "seed": run.seed, "config": run.settings.hash}
    Ledger(study.folder).add(Entry(row, entry.films, run.settings))
    theirs = folder / "runs" / f"{entry.row['variant']}-{entry.row['seed']}"
    if theirs.is_dir() and not run.run_dir.exists():
        run.run_dir.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(theirs.resolve(), run.run_dir.parent.resolve())
        # For TensorBoard, and for what measures the checkpoint. Windows asks for a right that few have.
        with suppress(OSError):
            run.run_dir.symlink_to(target, target_is_directory=True)


# --- what the study no longer asks for ------------------------------------------------------------------


def stale_rows(study: Study) -> dict[Key, str]:
    """Rows whose settings are not those of ``study.yaml`` and the defaults of today, and what differs.

    Rows without a hash, from an earlier version, cannot be compared and count as right.
    """
    planned = {run.key: run for run in study.planned}
    stale = {}
    for entry in Ledger(study.folder).entries():
        run, hash_ = planned.get(entry.key), entry.row.get("config")
        if run is None or not hash_:
            continue
        if entry.settings is None:
            if hash_ != run.settings.hash:
                stale[entry.key] = "its settings are not known any more"
        elif entry.settings.hash != run.settings.hash:
            changes = entry.settings.differences(run.settings).items()
            changed = [f"{key} {old} in the row, {new} now" for key, (old, new) in changes]
            stale[entry.key] = (
                ", ".join(changed) or "the checkpoint that it measured was trained with other settings"
            )
    return stale


def stale_folders(study: Study) -> list[Planned]:
    """Missing runs whose folder holds a run of other settings: neither to be resumed nor collected."""
    return [
        run for run in missing(study) if run.trains and _settings_in(run.run_dir) not in (None, run.settings.hash)
    ]


def refuse_stale(study: Study, *, keep_rows: bool = False, may_keep: bool = True) -> None:
    """Raises UserError naming what is stale and the ways out; ``keep_rows`` lets the rows be.

    ``may_keep`` says whether the command has that way out.
    """
    rows = {} if keep_rows else stale_rows(study)
    stale = [f"{variant}, seed {seed}: {what}" for (variant, seed), what in rows.items()]
    stale += [f"{run}: {run.run_dir} holds a run of other settings" for run in stale_folders(study)]
    if stale:
        listed = "\n  ".join(stale)
        raise UserError(
            f"{study.folder} has results of other settings than are asked for now:\n  {listed}\n"
            f"move stale results to {study.folder / STALE} and run anew"
            + (", or keep stale rows as they are" if rows and may_keep else "")
        )


def settle(study: Study, *, rerun_stale: bool, keep_rows: bool = False, may_keep: bool = True) -> None:
    """Move out or refuse what other settings have left, write down what is finished; raises UserError."""
    if rerun_stale:
        for variant, seed in move_stale(study):
            print(f"moved out of {study.folder}: {variant}, seed {seed}")
    refuse_stale(study, keep_rows=keep_rows, may_keep=may_keep)
    for run in collect(study):
        print(f"{run}: was finished in {run.run_dir}")


def move_stale(study: Study) -> list[Key]:
    """Rows and run folders that are stale, moved to the study's folder ``stale``; returns the runs."""
    rows, folders = set(stale_rows(study)), {run.key for run in stale_folders(study)}
    attic = study.folder / STALE
    for run in study.planned:
        if run.key in rows | folders:
            _move_folder(run.run_dir, attic / "runs")
    for entry in Ledger(study.folder).entries():
        if entry.key in rows:
            Ledger(attic).add(entry)  # before it is taken out: a kill in between loses nothing
    Ledger(study.folder).take_out(rows)
    return sorted(rows | folders)


def _move_folder(run_dir: Path, to: Path) -> None:
    if run_dir.is_symlink():
        run_dir.unlink()  # the run itself is another study's
    elif run_dir.is_dir():
        to.mkdir(parents=True, exist_ok=True)
        place = to / run_dir.name
        number = 2
        while place.exists():
            place, number = to / f"{run_dir.name}-{number}", number + 1
        shutil.move(run_dir, place)
