"""The figures of an evaluation as lines of text, for a terminal."""

from collections.abc import Mapping

from vertebra_kp.evaluation.classification import REFERENCE, REFERENCE_FROM, TARGETS
from vertebra_kp.evaluation.metric_table import metrics_for
from vertebra_kp.evaluation.schema import ClassSummary, Metrics, ShapeFigures
from vertebra_kp.evaluation.uncertainty.coverage import coverage_lines


def summary_lines(summary: Metrics) -> list[str]:
    """What there is of a ``metrics.json``, a figure with its 95 % interval per line."""
    lines = []
    for name in ("films", *(metric.name for metric in metrics_for("console"))):
        value, interval = summary.get(name), summary.get(f"{name}_ci95")
        if value is not None:
            lines.append(f"  {name:<24}{_short(value)}" + (f"   95 % {_short(interval)}" if interval else ""))
    if "coverage" in summary:
        lines += coverage_lines(summary["coverage"], each=False)
    if "shape" in summary:
        lines += _shape_lines(summary["shape"])
    return lines + _class_lines(summary)


def _shape_lines(shape: ShapeFigures) -> list[str]:
    lines = []
    for name, (without, corrected) in (("mre_px", shape["mre_px"]), ("median_px", shape["median_px"])):
        lines.append(f"  {'shape ' + name:<24}{_short(without)} as predicted, {_short(corrected)} corrected")
    medians = f"median error {_short(shape['flagged_median_px'])} px, others {_short(shape['other_median_px'])} px"
    return [*lines, f"  {'shape flags':<24}{shape['flagged']} corners, {medians}"]


def _class_lines(summary: ClassSummary) -> list[str]:
    lines = []
    for target in TARGETS:
        if found := summary.get(target):
            figures = {name: value for name, value in found.items() if isinstance(value, float)}
            lines.append(f"  {target:<24}{_named(figures)}   {_named(found['counts'])}")
    return [*lines, f"  {'for reference':<24}{_named(REFERENCE)}   {REFERENCE_FROM}"] if lines else []


def _named(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
