"""What a run leaves for people to look at: ``metrics.csv``, and curves and pictures in every tracker."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
from pydantic import ConfigDict
from typing_extensions import TypedDict  # of Python 3.11 pydantic takes no other

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import read_csv, write_csv
from vertebra_kp.evaluation.classification import class_headlines
from vertebra_kp.evaluation.metric_table import figures_for
from vertebra_kp.evaluation.schema import Metrics
from vertebra_kp.inference.overlays import FilmView, attention_panel, film_grid, film_panel
from vertebra_kp.reports.plots import plot_error_per_level
from vertebra_kp.training.run_folder import RunFolder
from vertebra_kp.training.trackers import Identity, open_trackers

GRID_COLUMNS = 4


class Tracker(AbstractContextManager):
    """Log of one run: ``metrics.csv`` and what ``train.trackers`` names; made on the main process only.

    ``resume_step`` is the last step that the run keeps: later rows of ``metrics.csv`` are dropped, because the
    resumed run writes them again. None starts anew. Raises UserError where a tracker cannot log.
    """

    def __init__(self, folder: RunFolder, config: Config, *, resume_step: int | None = None):
        folder.path.mkdir(parents=True, exist_ok=True)
        self._table = _MetricsTable(folder.curves, last_step=resume_step)
        opened = ExitStack()
        run = Identity.of(config, folder, resume_step)
        self._backends = opened.enter_context(open_trackers(config.train.trackers, run))
        self._close = opened.close
        self._phase: int | None = None
        self._step = 0 if resume_step is None else resume_step

    def __exit__(self, *exception: object) -> None:
        self._close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Curves, by tag (``train/loss``, ``lr/backbone_stage1``)."""
        self._step = step
        for backend in self._backends:
            backend.scalars(step, values)

    def phase(self, step: int, name: str, text: str, *, index: int) -> None:
        """Phase ``name``, the one of that ``index`` in the schedule from 0, begins with the settings ``text``."""
        if self._phase is not None and step > 0:
            self.scalars(step - 1, {"phase": self._phase})  # a step, not a ramp
        self.scalars(step, {"phase": index})
        for backend in self._backends:
            backend.text(step, "phase", f"**{name}** (phase {index})\n\n```\n{text}\n```")
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
        """Figures and pictures of one evaluation; ``row`` goes to ``metrics.csv`` behind its step.

        ``views`` are the same few films each time, ``worst`` those with the largest error.
        """
        self._table.append({"step": step, **row})
        phase = {} if self._phase is None else {"phase": self._phase}
        figures = figures_for("tracker", summary) | class_headlines(summary)
        measured = {f"val/{name}": value for name, value in figures.items() if value is not None}
        self.scalars(step, measured | phase)
        pictures: dict[str, np.ndarray] = {
            tag: film_grid([film_panel(view, schema) for view in films], GRID_COLUMNS)
            for tag, films in (("films/heatmaps", views), ("films/worst", worst))
            if films
        }
        for name in (views[0].prediction.attention or {}) if views else ():
            pictures[f"attention/{name}_last_layer"] = attention_panel(views[0], schema, name)
        errors = {level: figures["mre_px"] for level, figures in summary["per_level"].items()}
        pictures["error/per_level"] = plot_error_per_level(errors, f"error per level, step {step}")
        for backend in self._backends:
            backend.images(step, pictures)

    def finish(self, metrics: dict[str, float]) -> None:
        """The run's final figures, by tag, beside its settings."""
        for backend in self._backends:
            backend.finish(self._step, metrics)


class _Row(TypedDict):
    """With a figure in every other column."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    step: int


class _MetricsTable:
    """Rows by step in a CSV file that is written anew with each; later rows may bring new columns."""

    def __init__(self, path: Path, *, last_step: int | None):
        self._path = path
        self._columns: list[str] = []
        self._rows: list[Mapping[str, float | str | None]] = []
        if last_step is None:
            path.unlink(missing_ok=True)
        elif path.exists():
            # A kill of an older version, which appended, left half a line.
            rows = read_csv(path, _Row, remedy="remove it, which loses the curves so far", whole_lines=True)
            self._columns = list(rows[0]) if rows else []
            self._rows = [row for row in rows if row["step"] <= last_step]
            write_csv(self._columns, self._rows, path)

    def append(self, row: Mapping[str, float | str | None]) -> None:
        self._columns += [name for name in row if name not in self._columns]
        self._rows.append(row)
        write_csv(self._columns, self._rows, self._path)
