"""What a run leaves for people to look at: TensorBoard events and ``metrics.csv``."""

import csv
import io
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import write_csv
from vertebra_kp.evaluation.classification import class_headlines
from vertebra_kp.evaluation.metric_table import figures_for
from vertebra_kp.evaluation.schema import Metrics
from vertebra_kp.inference.overlays import FilmView, attention_panel, film_grid, film_panel
from vertebra_kp.reports.plots import plot_error_per_level

GRID_COLUMNS = 4
CHARTS = {  # several curves in one chart, in TensorBoard's Custom Scalars
    "training": {
        "losses": ["Multiline", [r"train/(total|heatmap|coordinate|presence|view|slip)"]],
        "learning rates": ["Multiline", [r"lr/.*"]],
    },
    "validation": {
        "error [px]": ["Multiline", [r"val/(mre|median)_px"]],
        "successful detection rate [%]": ["Multiline", [r"val/sdr_.*"]],
    },
}


class Tracker:
    """Log of one run in ``run_dir``: ``tensorboard/`` and ``metrics.csv``; made on rank 0 only.

    ``resume_step`` is the last step that the run keeps: later rows of ``metrics.csv`` are dropped and later
    events hidden, because the resumed run writes them again. None starts both anew.
    """

    def __init__(self, run_dir: Path, *, resume_step: int | None = None):
        # Imported here: it takes a second, and only rank 0 of a training needs it.
        from torch.utils.tensorboard import SummaryWriter

        run_dir.mkdir(parents=True, exist_ok=True)
        self._table = _MetricsTable(run_dir / "metrics.csv", last_step=resume_step)
        self._writer = SummaryWriter(
            str(run_dir / "tensorboard"), purge_step=None if resume_step is None else resume_step + 1
        )
        self._writer.add_custom_scalars(CHARTS)
        self._phase: int | None = None
        self._step = 0 if resume_step is None else resume_step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Curves, by tag (``train/loss``, ``lr/backbone_stage1``)."""
        self._step = step
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def phase(self, step: int, name: str, text: str, *, index: int | None = None) -> None:
        """Mark that phase ``name`` begins: its settings ``text`` under Text, and the curve ``phase`` steps up.

        ``index`` is the phase's place in the schedule, from 0; by default the one after the last. A resumed
        run, which has seen no earlier phase, gives it.
        """
        self._step = step
        if index is None:
            index = 0 if self._phase is None else self._phase + 1
        if self._phase is not None and step > 0:
            self._writer.add_scalar("phase", self._phase, step - 1)  # a step, not a ramp
        self._writer.add_scalar("phase", index, step)
        self._writer.add_text("phase", f"**{name}** (phase {index})\n\n```\n{text}\n```", step)
        self._writer.flush()
        self._phase = index

    def evaluation(
        self,
        step: int,
        row: dict[str, float | str | None],
        summary: Metrics,
        views: list[FilmView],
        worst: list[FilmView],
        schema: Schema,
    ) -> None:
        """Figures and pictures of one evaluation.

        ``row`` goes to ``metrics.csv`` behind its step; ``summary`` is that of ``summary_of``;
        ``views`` are the same few films each time, ``worst`` those with the largest error.
        """
        self._table.append({"step": step, **row})
        self.scalars(step, _validation_scalars(summary))
        if self._phase is not None:
            self._writer.add_scalar("phase", self._phase, step)
        for tag, films in (("films/heatmaps", views), ("films/worst", worst)):
            if films:
                panels = [film_panel(view, schema) for view in films]
                self._image(tag, film_grid(panels, GRID_COLUMNS), step)
        for name in (views[0].attention or {}) if views else ():
            self._image(f"attention/{name}_last_layer", attention_panel(views[0], schema, name), step)
        errors = {level: figures["mre_px"] for level, figures in summary["per_level"].items()}
        self._image("error/per_level", plot_error_per_level(errors, f"error per level, step {step}"), step)
        self._writer.flush()

    def _image(self, tag: str, picture: np.ndarray, step: int) -> None:
        self._writer.add_image(tag, picture, step, dataformats="HWC")

    def finish(self, hparams: dict[str, Any], metrics: dict[str, float]) -> None:
        """Settings and final figures (by tag) under HParams, in this very run: ``add_hparams`` opens a second.

        Settings that are neither text nor number nor bool (None, lists) are shown as text.
        """
        from torch.utils.tensorboard.summary import hparams as hparams_summaries

        shown = {k: v if isinstance(v, str | float | int | bool) else str(v) for k, v in hparams.items()}
        for summary in hparams_summaries(shown, metrics):
            self._writer.file_writer.add_summary(summary, self._step)
        self.scalars(self._step, metrics)
        self._writer.flush()


def _validation_scalars(summary: Metrics) -> dict[str, float]:
    """Tags and values of the figures that could be measured."""
    figures = figures_for("tracker", summary) | class_headlines(summary)
    return {f"val/{name}": value for name, value in figures.items() if value is not None}


class _MetricsTable:
    """Rows by step in a CSV file that survives a kill at any moment; later rows may bring new columns."""

    def __init__(self, path: Path, *, last_step: int | None):
        self._path = path
        self._columns: list[str] = []
        if last_step is None:
            path.unlink(missing_ok=True)
        elif path.exists():
            self._columns, rows = self._read()
            write_csv(self._columns, [row for row in rows if int(row["step"]) <= last_step], path)

    def append(self, row: dict[str, float | str | None]) -> None:
        new = [name for name in row if name not in self._columns]
        if new:
            rows = self._read()[1] if self._columns else []
            self._columns += new
            write_csv(self._columns, [*rows, row], self._path)
            return
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> tuple[list[str], list[dict]]:
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a kill in the middle of a write leaves half a line
        reader = csv.DictReader(io.StringIO(whole))
        return list(reader.fieldnames or []), list(reader)
