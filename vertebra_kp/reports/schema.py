"""``readings.json``: what was read on films, in the layout of these models (docs/readings.schema.json)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vertebra_kp.core.anatomy import CORNERS, Side, View
from vertebra_kp.core.files import write_json
from vertebra_kp.evaluation.uncertainty.calibration import Interval
from vertebra_kp.measures import Measurement
from vertebra_kp.reports.interpretation import Reading


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class IntervalOf(_Model):
    coverage: float = Field(description="share of films whose true value the interval is to hold")
    low: float
    high: float


class MeasureOf(_Model):
    """Either a value or the reason why there is none."""

    measure: str = Field(description="name of the measure, such as slip_percent")
    at: str = Field(description="vertebrae that it was measured at, such as L4/L5; empty where none were found")
    unit: Literal["deg", "mm", "%", "ratio"]
    value: float | None = None
    interval: IntervalOf | None = Field(None, description="only with a calibration")
    grade: str | None = Field(None, description="Meyerding (slips) or Genant (losses of height)")
    reason: str | None = None


class LevelOf(_Model):
    presence: float = Field(description="probability that the film shows the vertebra")
    corners: dict[str, list[float]] = Field(description="x, y in pixels of the film by TL, TR, BL, BR; seen ones")
    regions: dict[str, list[list[float]]] | None = Field(
        None,
        description="matrix in px² whose unit ellipse about the corner is its region; only with a calibration",
    )


class FilmOf(_Model):
    file: str
    height: int
    width: int
    view: View
    anterior_side: Side | None = None
    spacing_mm: float | None = None
    share_as_odd: float | None = Field(
        None, description="share of films that the network works on that look as odd; only with a calibration"
    )
    trusted: bool | None = Field(None, description="null without a calibration")
    corrected: bool = Field(description="whether corners were moved by the shape model")
    remarks: list[str]
    levels: dict[str, LevelOf]
    measures: list[MeasureOf]


class Readings(_Model):
    """All coordinates are continuous: the film covers [0, width] x [0, height]."""

    films: list[FilmOf]


def film_of(file: str, reading: Reading) -> FilmOf:
    spine = reading.spine
    assert spine.size is not None  # of a film that was read
    levels = {}
    for i, level in enumerate(spine.schema.levels):
        seen = [j for j in range(len(CORNERS)) if np.isfinite(spine.points_xy_image[i, j]).all()]
        regions = reading.regions
        levels[level] = LevelOf(
            presence=round(float(reading.presence[i]), 4),
            corners={CORNERS[j]: _rounded(spine.points_xy_image[i, j]) for j in seen},
            regions=None
            if regions is None
            else {CORNERS[j]: _rounded(regions[i, j]) for j in seen if np.isfinite(regions[i, j]).all()},
        )
    return FilmOf(
        file=file,
        height=spine.size[0],
        width=spine.size[1],
        view=spine.schema.view,
        anterior_side=spine.anterior_side,
        spacing_mm=spine.spacing_mm,
        share_as_odd=None if reading.share_as_odd is None else round(reading.share_as_odd, 4),
        trusted=reading.trusted,
        corrected=reading.corrected,
        remarks=list(reading.remarks),
        levels=levels,
        measures=[_measure_of(*entry) for entry in zip(reading.measurements, reading.intervals, strict=True)],
    )


def _measure_of(measurement: Measurement, interval: Interval | None) -> MeasureOf:
    return MeasureOf(
        measure=measurement.name,
        at=measurement.at,
        unit=measurement.unit,
        value=None if measurement.value is None else round(measurement.value, 4),
        interval=None
        if interval is None
        else IntervalOf(coverage=interval.coverage, low=round(interval.low, 4), high=round(interval.high, 4)),
        grade=measurement.grade,
        reason=measurement.reason,
    )


def _rounded(array: np.ndarray) -> list:
    return array.astype(float).round(3).tolist()


def write_readings(films: Sequence[FilmOf], path: Path) -> None:
    """Written whole or not at all; what is not known is left out."""
    write_json(Readings(films=list(films)).model_dump(mode="json", exclude_none=True), path)
