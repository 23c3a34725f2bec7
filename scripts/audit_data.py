"""Look for wrong labels, names of levels that contradict each other, films shown twice and patients in two splits.

Writes audit.csv (one finding a row, worst first), audit.html (the same with pictures) and repair.json: what is
certain as actions, everything else as proposals for a person. ``data.repair_file`` of a config applies it.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vertebra_kp.audit.disagreement import disagreement_findings
from vertebra_kp.audit.duplicates import SameFilm, same_films, thumbnail
from vertebra_kp.audit.labels import NOT_CONVEX, Finding, audit_labels
from vertebra_kp.audit.level_agreement import level_findings
from vertebra_kp.audit.page import write_page
from vertebra_kp.audit.records import gap_findings, outside_findings, patient_findings, spacing_findings
from vertebra_kp.core.anatomy import SCHEMAS, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.images import FilmError, read_film
from vertebra_kp.data.record import Record
from vertebra_kp.data.repair import (
    Action,
    ReorderCorners,
    ReorderLevels,
    RepairFile,
    Unlabel,
    apply_repairs,
    write_repair_file,
)
from vertebra_kp.data.sources import SOURCES, read_records, schema_of
from vertebra_kp.data.splits import load_split_file
from vertebra_kp.inference.predictor import Predictor, load

LIKELY = 0.5  # findings from here on are proposed in repair.json


def main() -> int:
    arguments = parse_arguments()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        schema = schema_of(arguments.source, arguments.anatomy)
        records = read_records(arguments.source, arguments.root, schema, stored_order=True)
        split_of = splits_by_film(arguments.split_file)
        findings = audit_labels(records, schema) + spacing_findings(records) + patient_findings(records, split_of)
        for record in records:
            findings += gap_findings(record, schema)
        if not arguments.labels_only:
            findings += film_findings(records, schema, split_of)
            mended = apply_repairs(records, repair_file_of(arguments.source, schema.name, findings), schema)
            findings += level_findings(mended, schema)
        if arguments.checkpoint is not None:
            findings += disagreement_findings(records, load_for(arguments.checkpoint, schema))
        findings.sort(key=lambda finding: -finding.severity)
        write_rows(arguments.out / "audit.csv", findings)
        repair = repair_file_of(arguments.source, schema.name, findings)
        write_repair_file(repair, arguments.out / "repair.json")
        write_page(arguments.out / "audit.html", f"Audit of {arguments.source}", findings, records, schema)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    likely = {finding.film for finding in findings if finding.severity >= LIKELY}
    print(
        f"{len(records)} films: {len(findings)} findings, {len(likely)} films at severity {LIKELY} and above; "
        f"written to {arguments.out}: audit.html, audit.csv, repair.json"
    )
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--anatomy", choices=SCHEMAS, help="of the labels; not needed for aasce")
    parser.add_argument("--split-file", help="also look for patients and films that stand in two of its splits")
    parser.add_argument(
        "--checkpoint", type=Path, help="best.pt of a run: also compare labels with its predictions"
    )
    parser.add_argument("--labels-only", action="store_true", help="do not compare the films' pixels")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def splits_by_film(split_file: str | None) -> dict[str, str]:
    if split_file is None:
        return {}
    return {id: name for name, ids in load_split_file(split_file).splits.items() for id in ids}


def load_for(checkpoint: Path, schema: Schema) -> Predictor:
    predictor = load(checkpoint)
    if predictor.schema != schema:
        raise UserError(
            f"{checkpoint} knows {predictor.schema.name}, the labels are of {schema.name}; name another checkpoint"
        )
    return predictor


def film_findings(records: Sequence[Record], schema: Schema, split_of: dict[str, str]) -> list[Finding]:
    """What only the pixels tell: films that cannot be read, corners off the film, films shown twice."""

    def look(record: Record) -> tuple[list[Finding], np.ndarray | None]:
        try:
            film = read_film(record.image_path)
        except FilmError as error:
            return [Finding(record.id, "unreadable", "", 1.0, str(error))], None
        return outside_findings(record, (film.shape[0], film.shape[1]), schema), thumbnail(film)

    with ThreadPoolExecutor() as pool:
        looked = list(tqdm(pool.map(look, records), "comparing films", len(records), leave=False))
    findings = [finding for found, _ in looked for finding in found]
    seen = [(record, small) for record, (_, small) in zip(records, looked, strict=True) if small is not None]
    pairs = same_films([record for record, _ in seen], [small for _, small in seen]) if seen else []
    return findings + [pair_finding(pair, split_of) for pair in pairs]


def pair_finding(pair: SameFilm, split_of: dict[str, str]) -> Finding:
    """A film shown twice; certain where the two stand in different splits."""
    told = f"shows the same picture as {pair.second} (correlation {pair.correlation:.3f})"
    first, second = split_of.get(pair.first), split_of.get(pair.second)
    if first and second and first != second:
        told += f", which is in {second}, this in {first}"
        return Finding(pair.first, "film_in_two_splits", "", 1.0, told)
    return Finding(pair.first, "film_twice", "", 0.5, told)


def write_rows(path: Path, findings: Sequence[Finding]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("film", "finding", "level", "severity", "proposal"))
        for f in findings:
            writer.writerow((f.film, f.kind, f.level, f"{f.severity:.3f}", f.proposal))


def repair_file_of(source: str, anatomy: str, findings: Sequence[Finding]) -> RepairFile:
    """Certain repairs as actions, levels before corners; what is likely wrong as proposals."""
    films: dict[str, list[Action]] = {}
    proposals: dict[str, list[str]] = {}
    for f in sorted(findings, key=lambda finding: (finding.film, finding.order is None)):
        if f.order is not None:
            films.setdefault(f.film, []).append(ReorderLevels(order=list(f.order), reason=f.proposal))
        elif f.corners is not None:
            action = ReorderCorners(level=f.level, order=list(f.corners), reason=f.proposal)
            films.setdefault(f.film, []).append(action)
        elif f.kind == NOT_CONVEX:
            films.setdefault(f.film, []).append(Unlabel(level=f.level, reason=f.proposal))
        elif f.severity >= LIKELY:
            proposals.setdefault(f.film, []).append(f"{f.kind} {f.level}: {f.proposal}")
    return RepairFile(source=source, anatomy=anatomy, films=films, proposals=proposals)


if __name__ == "__main__":
    sys.exit(main())
