"""The metrics of an evaluation in one table: key, label, unit, and who shows each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Lines on a terminal, rows of an HTML report, curves of a tracker such as TensorBoard, columns of a run's
# metrics.csv and of a study's results.csv, lines of a comparison of two labellings.
Use = Literal["console", "report", "tracker", "run_csv", "study", "label_noise"]
SUMMARY: tuple[Use, ...] = ("console", "report", "tracker")
COLUMN: tuple[Use, ...] = (*SUMMARY, "run_csv")


@dataclass(frozen=True)
class Metric:
    """``name`` is the key in ``metrics.json``; ``unit`` is empty for a share from 0 to 1."""

    name: str
    label: str
    unit: str
    uses: tuple[Use, ...]

    @property
    def title(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label


METRICS = (
    Metric("mre_px", "Mean radial error", "px", (*COLUMN, "study", "label_noise")),
    Metric("median_px", "Median radial error", "px", (*COLUMN, "study", "label_noise")),
    Metric("mre_percent_diagonal", "Mean radial error", "% of the diagonal", COLUMN),
    Metric("median_percent_diagonal", "Median radial error", "% of the diagonal", (*SUMMARY, "label_noise")),
    Metric("mre_mm", "Mean radial error", "mm", SUMMARY),
    Metric("median_mm", "Median radial error", "mm", ("report", "tracker")),
    Metric("sdr_px", "Successful detection rate by threshold in px", "% of corners", ("tracker",)),
    Metric("sdr_mm", "Successful detection rate by threshold in mm", "% of corners", ("tracker",)),
    Metric("level_shift_rate", "Share of images shifted by a level", "", (*COLUMN, "study", "label_noise")),
    Metric("presence_precision", "Precision of presence", "", (*COLUMN, "study")),
    Metric("presence_recall", "Recall of presence", "", (*COLUMN, "study")),
    Metric("collapsed_share", "Share of heatmaps without a peak", "", ("tracker", "run_csv")),
    Metric("cobb_mae_deg", "Mean absolute errors of the AASCE angles", "degrees", ("console", "label_noise")),
    Metric("smape_published", "SMAPE as published", "%", (*COLUMN, "label_noise")),
    Metric("smape_per_angle", "SMAPE per angle", "%", SUMMARY),
)


def metrics_for(use: Use) -> list[Metric]:
    return [metric for metric in METRICS if use in metric.uses]


def figures_for(use: Use, summary: Mapping[str, object]) -> dict[str, float | None]:
    """The numbers of a ``metrics.json`` by name, rates as ``NAME_THRESHOLD``; None for what is missing."""
    figures: dict[str, float | None] = {}
    for metric in metrics_for(use):
        value = summary.get(metric.name)
        rates = {f"{metric.name}_{part}": rate for part, rate in value.items()} if isinstance(value, dict) else {}
        figures |= rates or {metric.name: value if isinstance(value, int | float) else None}
    return figures
