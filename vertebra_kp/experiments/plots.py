"""Pictures of a study: differences to the baseline with their intervals, and the error of every seed."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vertebra_kp.evaluation.compare import NO_DIFFERENCE
from vertebra_kp.experiments.study import Study
from vertebra_kp.experiments.table import LEVEL, Variant, variants_of

COLOURS = {"better": "#1b7837", "worse": "#b2182b", NO_DIFFERENCE: "#4d4d4d"}
BASELINE = "#2166ac"
ROW_INCHES = 0.42


def draw_plots(study: Study) -> list[Path]:
    """Write the pictures into the study's folder ``plots``; returns those for which there is enough to show."""
    variants = variants_of(study)
    pictures = {}
    if compared := [variant for variant in variants if variant.difference]:
        pictures["differences.png"] = _differences(study, compared)
    if variants:
        pictures["errors.png"] = _errors(variants)
    folder = study.folder / "plots"
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        FigureCanvasAgg(figure).print_png(folder / name)
    return [folder / name for name in pictures]


def _differences(study: Study, variants: list[Variant]) -> Figure:
    """A forest plot: a line per variant, zero is the baseline."""
    figure, axes = _rows(variants, "difference of the mean radial error [px], less is better")
    axes.axvline(0, color=BASELINE, linewidth=1)
    for row, variant in enumerate(variants):
        interval = variant.difference
        assert interval is not None
        colour = COLOURS[interval.verdict]
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(interval.mean, row, "o", color=colour, markersize=6)
        axes.annotate(
            interval.verdict, (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=8, color=colour,
        )  # fmt: skip
    together = f"{100 * LEVEL:.0f} % intervals" + (", together" if study.comparisons > 1 else "")
    axes.set_title(f"against {study.file.baseline} ({together})", fontsize=10)
    return figure


def _errors(variants: list[Variant]) -> Figure:
    """A point per seed, a bar at the mean; points of one seed share a colour."""
    figure, axes = _rows(variants, "mean radial error [px]; bar: mean over seeds")
    seeds = sorted({seed for variant in variants for seed in variant.entries})
    for row, variant in enumerate(variants):
        errors = variant.figures("mre_px")
        axes.plot([np.mean(errors)] * 2, [row - 0.28, row + 0.28], color="#4d4d4d", linewidth=2, zorder=1)
    for number, seed in enumerate(seeds):
        points = [
            (float(variant.entries[seed].row["mre_px"]), row)
            for row, variant in enumerate(variants)
            if seed in variant.entries
        ]
        offset = 0.36 * (number / max(1, len(seeds) - 1) - 0.5)  # equal errors do not hide each other
        x, y = np.array(points).T
        axes.plot(x, y + offset, "o", markersize=5, alpha=0.85, label=str(seed), zorder=2)
    axes.legend(title="seed", fontsize=8, title_fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def _rows(variants: list[Variant], xlabel: str) -> tuple[Figure, Axes]:
    """Axes with one row per variant, the first on top."""
    figure = Figure(figsize=(7.5, 1.3 + ROW_INCHES * len(variants)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants], fontsize=9)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes
