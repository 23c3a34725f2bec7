"""Findings beyond the shape of the vertebrae: gaps, corners outside the image, spacing, splits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from vertebra_kp.audit.labels import Finding
from vertebra_kp.core.anatomy import Schema, State
from vertebra_kp.data.record import Record, mark_outside

OUTSIDE_SLACK = 0.1  # vertebra heights: a corner nearer than this to the image's edge is a matter of taste
GAP = "between labelled vertebrae, without a label; was it forgotten, or are the levels below one too low?"
WIDTH_MM_LIMIT = 0.5  # log-ratio of an image's vertebra width in mm to the median image's: 1.65 times


def gap_findings(record: Record, schema: Schema) -> list[Finding]:
    """Levels without any label between two labelled ones."""
    if record.states is None:
        return []
    labelled = np.flatnonzero((record.states == State.LABELLED).any(axis=1))
    if not labelled.size:
        return []
    unlabelled = np.flatnonzero((record.states == State.UNLABELLED).any(axis=1))
    inside = (unlabelled > labelled[0]) & (unlabelled < labelled[-1]) & ~np.isin(unlabelled, labelled)
    return [Finding(record.id, "gap", schema.levels[i], 0.6, GAP) for i in unlabelled[inside]]


def outside_findings(record: Record, size: tuple[int, int], schema: Schema) -> list[Finding]:
    """Levels with labelled corners outside the image of ``size`` (height, width): training masks those corners."""
    if record.points_xy_image is None or record.states is None:
        return []
    points = record.points_xy_image
    _, states, _ = mark_outside(points, record.states, size)
    off = (states == State.OUTSIDE) & (record.states == State.LABELLED)
    beyond = np.maximum(np.maximum(-points, points - (size[1], size[0])), 0).max(axis=-1)
    height = np.nanmedian(np.ptp(points[..., 1], axis=1)) if off.any() else 1.0
    findings = []
    for i in np.flatnonzero(off.any(axis=1)):
        distance = float(beyond[i][off[i]].max())
        severity = 0.9 if distance > OUTSIDE_SLACK * height else 0.3
        proposal = f"up to {distance:.0f} px outside the image of {size[1]} x {size[0]} px; is this its own label?"
        findings.append(Finding(record.id, "outside", schema.levels[i], severity, proposal))
    return findings


def spacing_findings(records: Sequence[Record]) -> list[Finding]:
    """Images whose vertebrae have an unlikely width in mm: their spacing, or the unit of it, is wrong."""
    widths = {record.id: width for record in records if (width := _width_mm(record)) is not None}
    if len(widths) < 3:
        return []
    usual = float(np.median(list(widths.values())))
    findings = []
    for film, width in widths.items():
        ratio = abs(np.log(width / usual))
        if ratio >= WIDTH_MM_LIMIT:
            proposal = f"check spacing_mm: vertebrae would be {width:.0f} mm wide, usual are {usual:.0f} mm"
            findings.append(Finding(film, "spacing", "", min(1.0, 0.5 * ratio / WIDTH_MM_LIMIT), proposal))
    return findings


def _width_mm(record: Record) -> float | None:
    """Median width of an image's vertebrae in mm; None without spacing or labels."""
    if record.spacing_mm is None or record.points_xy_image is None:
        return None
    top_left, top_right = record.points_xy_image[:, 0], record.points_xy_image[:, 1]
    widths = np.linalg.norm(top_right - top_left, axis=-1)
    widths = widths[np.isfinite(widths) & (widths > 0)]
    return float(np.median(widths)) * record.spacing_mm if widths.size else None


def patient_findings(records: Sequence[Record], split_of: Mapping[str, str]) -> list[Finding]:
    """Images of a patient (group) who is in two splits; ``split_of`` gives an image's split by its id."""
    splits: dict[str, set[str]] = defaultdict(set)
    chosen = [record for record in records if record.id in split_of]
    for record in chosen:
        splits[record.group].add(split_of[record.id])
    findings = []
    for record in chosen:
        if len(of := splits[record.group]) > 1:
            proposal = f"patient {record.group} is in {' and '.join(sorted(of))}"
            findings.append(Finding(record.id, "patient_in_two_splits", "", 1.0, proposal))
    return findings
