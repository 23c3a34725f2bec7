"""Findings about films beyond the shape of their vertebrae: gaps, corners off the film, spacing, splits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from vertebra_kp.audit.labels import Finding
from vertebra_kp.core.anatomy import Schema, State
from vertebra_kp.data.record import Record, mark_outside

OUTSIDE_SLACK = 0.1  # vertebra heights: a corner nearer than this to the film's edge is a matter of taste
WIDTH_MM_LIMIT = 0.5  # log-ratio of a film's vertebra width in mm to the median film's: 1.65 times


def gap_findings(record: Record, schema: Schema) -> list[Finding]:
    """Levels without any label between two labelled ones."""
    if record.states is None:
        return []
    labelled = np.flatnonzero((record.states == State.LABELLED).any(axis=1))
    if not labelled.size:
        return []
    between = range(labelled[0], labelled[-1])
    told = "between labelled vertebrae, without a label; was it forgotten, or are the levels below one too low?"
    gone = (record.states == State.UNLABELLED).any(axis=1)
    return [
        Finding(record.id, "gap", schema.levels[i], 0.6, told) for i in between if i not in labelled and gone[i]
    ]


def outside_findings(record: Record, size: tuple[int, int], schema: Schema) -> list[Finding]:
    """Levels with labelled corners off the film of ``size`` (height, width): training masks those corners."""
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
        told = f"up to {distance:.0f} px off the film of {size[1]} x {size[0]} px; is this the film's own label?"
        findings.append(Finding(record.id, "outside", schema.levels[i], severity, told))
    return findings


def spacing_findings(records: Sequence[Record]) -> list[Finding]:
    """Films whose vertebrae have an unlikely width in mm: their spacing, or the unit of it, is wrong."""
    widths = {record.id: width for record in records if (width := _width_mm(record)) is not None}
    if len(widths) < 3:
        return []
    usual = float(np.median(list(widths.values())))
    findings = []
    for film, width in widths.items():
        ratio = abs(np.log(width / usual))
        if ratio >= WIDTH_MM_LIMIT:
            told = f"its vertebrae would be {width:.0f} mm wide, those of the median film are {usual:.0f} mm"
            severity = min(1.0, 0.5 * ratio / WIDTH_MM_LIMIT)
            findings.append(Finding(film, "spacing", "", severity, f"check spacing_mm: {told}"))
    return findings


def _width_mm(record: Record) -> float | None:
    """Median width of a film's vertebrae in mm; None without spacing or labels."""
    if record.spacing_mm is None or record.points_xy_image is None:
        return None
    top_left, top_right = record.points_xy_image[:, 0], record.points_xy_image[:, 1]
    widths = np.linalg.norm(top_right - top_left, axis=-1)
    widths = widths[np.isfinite(widths) & (widths > 0)]
    return float(np.median(widths)) * record.spacing_mm if widths.size else None


def patient_findings(records: Sequence[Record], split_of: Mapping[str, str]) -> list[Finding]:
    """Films of a patient (group) who has films in two splits; ``split_of`` gives a film's split by its id."""
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.id in split_of:
            splits[record.group].add(split_of[record.id])
    shared = {group: " and ".join(sorted(names)) for group, names in splits.items() if len(names) > 1}
    return [
        Finding(
            record.id, "patient_in_two_splits", "", 1.0, f"patient {record.group} is in {shared[record.group]}"
        )
        for record in records
        if record.id in split_of and record.group in shared
    ]
