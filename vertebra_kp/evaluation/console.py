"""The figures of an evaluation as lines of text, for a terminal."""

from typing import Any

from vertebra_kp.evaluation.classification import REFERENCE, REFERENCE_FROM, TARGETS
from vertebra_kp.evaluation.uncertainty.coverage import coverage_lines

NAMES = (
    "films",
    "mre_px",
    "median_px",
    "mre_mm",
    "mre_percent_diagonal",
    "median_percent_diagonal",
    "level_shift_rate",
    "presence_precision",
    "presence_recall",
    "cobb_mae_deg",
    "smape_published",
    "smape_per_angle",
)


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """What there is of a ``metrics.json``, a figure with its 95 % interval per line."""
    lines = []
    for name in NAMES:
        value, interval = summary.get(name), summary.get(f"{name}_ci95")
        if value is not None:
            lines.append(f"  {name:<24}{_short(value)}" + (f"   95 % {_short(interval)}" if interval else ""))
    if "coverage" in summary:
        lines += coverage_lines(summary["coverage"], each=False)
    if "shape" in summary:
        lines += _shape_lines(summary["shape"])
    return lines + _class_lines(summary)


def _shape_lines(told: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("mre_px", "median_px"):
        without, corrected = told[name]
        lines.append(f"  {'shape ' + name:<24}{_short(without)} as predicted, {_short(corrected)} corrected")
    medians = f"median error {_short(told['flagged_median_px'])} px, others {_short(told['other_median_px'])} px"
    return [*lines, f"  {'shape flags':<24}{told['flagged']} corners, {medians}"]


def _class_lines(summary: dict[str, Any]) -> list[str]:
    lines = []
    for target in (target for target in TARGETS if target in summary):
        figures = {name: value for name, value in summary[target].items() if isinstance(value, float)}
        lines.append(f"  {target:<24}{_named(figures)}   {_named(summary[target]['counts'])}")
    return [*lines, f"  {'for reference':<24}{_named(REFERENCE)}   {REFERENCE_FROM}"] if lines else []


def _named(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
