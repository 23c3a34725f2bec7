"""Everything that can be found wrong in a data set without a network, and the repair file that follows from it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vertebra_kp.audit.duplicates import same_films, thumbnail
from vertebra_kp.audit.labels import NOT_CONVEX, Finding, audit_labels
from vertebra_kp.audit.records import gap_findings, outside_findings, patient_findings, spacing_findings
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.files import write_csv
from vertebra_kp.data.images import FilmError, read_film
from vertebra_kp.data.record import Record
from vertebra_kp.data.repair import Action, ReorderCorners, ReorderLevels, RepairFile, Unlabel

LIKELY = 0.5  # findings from here on are proposed in a repair file


def record_findings(records: Sequence[Record], schema: Schema, split_of: Mapping[str, str]) -> list[Finding]:
    """What labels and records alone say; ``split_of`` gives an image's split by its id."""
    findings = audit_labels(records, schema) + spacing_findings(records) + patient_findings(records, split_of)
    return findings + [finding for record in records for finding in gap_findings(record, schema)]


def pixel_findings(records: Sequence[Record], schema: Schema, split_of: Mapping[str, str]) -> list[Finding]:
    """What only pixels say: images that cannot be read, corners outside the image, images that are there twice."""

    def check(record: Record) -> tuple[list[Finding], np.ndarray | None]:
        try:
            film = read_film(record.image_path)
        except FilmError as error:
            return [Finding(record.id, "unreadable", "", 1.0, str(error))], None
        return outside_findings(record, (film.shape[0], film.shape[1]), schema), thumbnail(film)

    with ThreadPoolExecutor() as pool:
        checked = list(tqdm(pool.map(check, records), "comparing images", len(records), leave=False))
    findings = [finding for found, _ in checked for finding in found]
    read = [(record.id, small) for record, (_, small) in zip(records, checked, strict=True) if small is not None]
    for i, j, correlation in same_films([small for _, small in read]):
        findings.append(_twice(read[i][0], read[j][0], correlation, split_of))
    return findings


def _twice(film: str, other: str, correlation: float, split_of: Mapping[str, str]) -> Finding:
    """An image that is there twice; certain where the two are in different splits."""
    text = f"shows the same picture as {other} (correlation {correlation:.3f})"
    first, second = split_of.get(film), split_of.get(other)
    if first and second and first != second:
        return Finding(film, "film_in_two_splits", "", 1.0, f"{text}, which is in {second}, this in {first}")
    return Finding(film, "film_twice", "", 0.5, text)


def write_rows(path: Path, findings: Sequence[Finding]) -> None:
    rows = [vars(f) | {"finding": f.kind, "severity": f"{f.severity:.3f}"} for f in findings]
    write_csv(("film", "finding", "level", "severity", "proposal"), rows, path)


def repair_file_of(source: str, anatomy: str, findings: Sequence[Finding]) -> RepairFile:
    """Certain repairs as actions, levels before corners; what is likely wrong as proposals."""
    films: dict[str, list[Action]] = defaultdict(list)
    proposals: dict[str, list[str]] = defaultdict(list)
    for f in sorted(findings, key=lambda finding: (finding.film, finding.order is None)):
        if f.order is not None:
            films[f.film].append(ReorderLevels(order=list(f.order), reason=f.proposal))
        elif f.corners is not None:
            films[f.film].append(ReorderCorners(level=f.level, order=list(f.corners), reason=f.proposal))
        elif f.kind == NOT_CONVEX:
            films[f.film].append(Unlabel(level=f.level, reason=f.proposal))
        elif f.severity >= LIKELY:
            proposals[f.film].append(f"{f.kind} {f.level}: {f.proposal}")
    return RepairFile(source=source, anatomy=anatomy, films=dict(films), proposals=dict(proposals))
