"""Figures of a run's report."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from vertebra_kp.evaluation.agreement import Agreement
from vertebra_kp.inference.overlays import PREDICTED_COLOUR
from vertebra_kp.reports.html import figure_pixels

BLUE, ORANGE, GREY = "#1c6fb3", "#d9480f", "#8a949e"
BARS = tuple(channel / 255 for channel in PREDICTED_COLOUR)


def _axes(width: float, height: float, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color="#e3e7ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def errors_by_level(levels: Sequence[str], errors: Sequence[np.ndarray], unit: str) -> Figure:
    """Median, quartiles and 5 to 95 percent of each level's corner errors."""
    figure, axes = _axes(max(4.5, 0.42 * len(levels) + 1.5), 3.0, "", f"radial error [{unit}]")
    shown = [(level, e) for level, e in zip(levels, errors, strict=True) if e.size]
    axes.boxplot(
        [e for _, e in shown],
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": "#d6e6f3", "edgecolor": BLUE},
        medianprops={"color": ORANGE, "linewidth": 1.5},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
    )
    axes.set_xticks(range(1, len(shown) + 1), [level for level, _ in shown], fontsize=8)
    axes.set_ylim(bottom=0)
    return figure


def plot_error_per_level(per_level: Mapping[str, float | None], title: str) -> np.ndarray:
    """Bars of the mean radial error of each level, RGB ``[H, W, 3]`` uint8; a level without a figure has none."""
    figure, axes = _axes(max(5.0, 0.5 * len(per_level) + 1.5), 3.4, "", "mean radial error [px]")
    bars = axes.bar(list(per_level), [value or 0.0 for value in per_level.values()], color=BARS, width=0.7)
    texts = ["–" if value is None else f"{value:.3g}" for value in per_level.values()]
    axes.bar_label(bars, texts, padding=2, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.12)
    return figure_pixels(figure)


def cumulative_errors(errors: np.ndarray, unit: str) -> Figure:
    """Share of the corners within an error; a logarithmic axis shows precision and lost vertebrae alike."""
    figure, axes = _axes(5.0, 3.0, f"radial error [{unit}]", "corners within it [%]")
    ascending = np.sort(errors[errors > 0])
    share = 100 * (np.arange(1, len(ascending) + 1) + (errors == 0).sum()) / max(1, len(errors))
    axes.semilogx(ascending, share, color=BLUE, linewidth=1.8)
    _plain_numbers(axes.xaxis)
    axes.set_ylim(0, 101)
    return figure


def bland_altman(true: np.ndarray, predicted: np.ndarray, found: Agreement, unit: str) -> Figure:
    figure, axes = _axes(3.6, 2.7, f"mean of both [{unit}]", f"predicted − true [{unit}]")
    axes.plot((true + predicted) / 2, predicted - true, "o", color=BLUE, markersize=3, alpha=0.45, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axhline(found.bias, color=ORANGE, linewidth=1.4)
    for limit in (found.low, found.high):
        axes.axhline(limit, color=ORANGE, linewidth=1, linestyle="--")
    return figure


def reliability(promised: Sequence[float], kept: Mapping[str, Sequence[float | None]]) -> Figure:
    """Promised coverage against what was found, None for unknown; on the diagonal both agree."""
    figure, axes = _axes(3.9, 3.4, "promised coverage [%]", "found coverage [%]")
    axes.plot([40, 100], [40, 100], color=GREY, linewidth=0.8)
    for (name, shares), colour in zip(kept.items(), (BLUE, ORANGE), strict=False):
        found = 100 * np.array(shares, float)
        axes.plot(100 * np.array(promised), found, "o-", color=colour, markersize=4, label=name)
    axes.legend(fontsize=8, frameon=False)
    axes.set_aspect("equal")
    return figure


def roc(bad: np.ndarray, good: np.ndarray) -> Figure:
    """ROC curve: share of the ``bad`` scores that a threshold flags, against that of the ``good`` ones."""
    figure, axes = _axes(3.6, 3.2, "other images flagged [%]", "worst images flagged [%]")
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([bad, good]))[::-1]])
    rates = [(100 * (good >= t).mean(), 100 * (bad >= t).mean()) for t in thresholds]
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    axes.plot(*zip(*rates, strict=True), color=BLUE, linewidth=1.8)
    axes.set_aspect("equal")
    return figure


def robustness(kinds: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> Figure:
    """Error against strength, one panel per kind; the dotted line is the error without disturbance."""
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.2 * rows), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for panel in panels.flat[len(kinds) :]:
        panel.set_visible(False)
    for panel, (kind, points) in zip(panels.flat, kinds.items(), strict=False):
        strength, error = np.array(points).T
        panel.plot(strength, error, "o-", color=BLUE, markersize=3.5)
        panel.axhline(error[0], color=GREY, linewidth=0.9, linestyle=":")
        panel.set_yscale("log")
        _plain_numbers(panel.yaxis)
        panel.set_title(kind.replace("_", " "), fontsize=9)
        _style(panel)
    figure.supylabel(f"median radial error [{unit}]", fontsize=9)
    return figure


def _plain_numbers(axis: Axis) -> None:
    """1, 2, 5, 10 on a logarithmic axis, where matplotlib writes powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
