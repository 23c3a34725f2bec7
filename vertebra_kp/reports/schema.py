"""``readings.json``: the measurement report of some images, in the layout of docs/readings.schema.json."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vertebra_kp.core.anatomy import CORNERS, Side, View
from vertebra_kp.core.files import write_json
from vertebra_kp.evaluation.uncertainty.calibration import Interval
from vertebra_kp.measures import Measurement
from vertebra_kp.reports.interpretation import Interpretation


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MeasureReport(_Model):
    """Either a value or the reason why there is none."""

    measure: str = Field(description="name of the measure, such as slip_percent")
    at: str = Field(description="vertebrae that it was measured at, such as L4/L5; empty where none were found")
    unit: Literal["deg", "mm", "%", "ratio"]
    value: float | None = None
    interval: Interval | None = Field(None, description="only with a calibration")
    grade: str | None = Field(None, description="Meyerding (slips) or Genant (losses of height)")
    reason: str | None = None


class LevelReport(_Model):
    presence: float = Field(description="probability that the image shows the vertebra")
    corners: dict[str, list[float]] = Field(description="x, y in pixels by TL, TR, BL, BR; visible corners only")
    regions: dict[str, list[list[float]]] | None = Field(
        None, description="matrix in px² whose unit ellipse about the corner is its region; needs a calibration"
    )


class ImageReport(_Model):
    file: str
    height: int
    width: int
    view: View
    anterior_side: Side | None = None
    spacing_mm: float | None = None
    share_as_odd: float | None = Field(
        None, description="conformal p-value of the out-of-distribution score; only with a calibration"
    )
    trusted: bool | None = Field(
        None, description="false where there are doubts; null without any and without a calibration"
    )
    doubts: list[str] = Field([], description="reasons for a second opinion")
    corrected: bool = Field(description="whether corners were moved by the shape model")
    remarks: list[str]
    levels: dict[str, LevelReport]
    measures: list[MeasureReport]


class MeasurementReport(_Model):
    """All coordinates are continuous: an image covers [0, width] x [0, height]."""

    films: list[ImageReport]


def image_report(file: str, found: Interpretation) -> ImageReport:
    spine = found.spine
    assert spine.size is not None  # of an image that was read
    return ImageReport(
        file=file,
        height=spine.size[0],
        width=spine.size[1],
        view=spine.schema.view,
        anterior_side=spine.anterior_side,
        spacing_mm=spine.spacing_mm,
        share_as_odd=None if found.p_value is None else round(found.p_value, 4),
        trusted=found.trusted,
        doubts=list(found.doubts),
        corrected=found.corrected,
        remarks=list(found.remarks),
        levels={level: _level_report(i, found) for i, level in enumerate(spine.schema.levels)},
        measures=[_measure_report(*of) for of in zip(found.measurements, found.intervals, strict=True)],
    )


def _level_report(i: int, found: Interpretation) -> LevelReport:
    points = found.spine.points_xy_image[i]
    regions = None if found.regions is None else _by_corner(found.regions[i], where=points)
    presence = round(float(found.presence[i]), 4)
    return LevelReport(presence=presence, corners=_by_corner(points, where=points), regions=regions)


def _by_corner(values: np.ndarray, *, where: np.ndarray) -> dict[str, list]:
    """``values`` ``[4, ...]`` by corner, only where they and the points ``[4, 2]`` are known."""
    known = np.isfinite(values.reshape(4, -1)).all(axis=1) & np.isfinite(where).all(axis=1)
    return {CORNERS[j]: values[j].astype(float).round(3).tolist() for j in np.flatnonzero(known)}


def _measure_report(m: Measurement, interval: Interval | None) -> MeasureReport:
    value = None if m.value is None else round(m.value, 4)
    if interval is not None:
        interval = replace(interval, low=round(interval.low, 4), high=round(interval.high, 4))
    return MeasureReport(
        measure=m.name, at=m.at, unit=m.unit, value=value, interval=interval, grade=m.grade, reason=m.reason
    )


def write_measurement_report(images: Sequence[ImageReport], path: Path) -> None:
    """Written whole or not at all; what is not known is left out."""
    write_json(MeasurementReport(films=list(images)).model_dump(mode="json", exclude_none=True), path)
