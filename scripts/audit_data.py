"""Look for wrong labels, films shown twice and patients in two splits, before they train anything.

Writes audit.csv (one finding a row, worst first), audit.html (the same with pictures) and repair.json: what is
certain as actions, everything else as proposals for a person. ``data.repair_file`` of a config applies it.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from vertebra_kp.anatomy import SCHEMAS
from vertebra_kp.audit_page import write_page
from vertebra_kp.data.audit import Finding, audit_labels
from vertebra_kp.data.duplicates import SameFilm, same_films, thumbnail
from vertebra_kp.data.images import FilmError, read_film
from vertebra_kp.data.record import Record
from vertebra_kp.data.repair import Action, ReorderCorners, ReorderLevels, RepairFile, write_repair_file
from vertebra_kp.data.sources import SOURCES, read_records
from vertebra_kp.data.splits import load_split_file
from vertebra_kp.errors import UserError

LIKELY = 0.5  # findings from here on are proposed in repair.json


def main() -> int:
    arguments = parse_arguments()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        schema = SCHEMAS[arguments.anatomy]
        records = read_records(arguments.source, arguments.root, schema, stored_order=True)
        findings = audit_labels(records, schema)
        if not arguments.labels_only:
            findings += film_findings(records, arguments.split_file)
        findings.sort(key=lambda finding: -finding.severity)
        write_rows(arguments.out / "audit.csv", findings)
        repair = repair_file_of(arguments.source, arguments.anatomy, findings)
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
    parser.add_argument("--anatomy", choices=SCHEMAS, default="ap_whole_spine")
    parser.add_argument("--split-file", help="also look for patients and films that stand in two of its splits")
    parser.add_argument("--labels-only", action="store_true", help="do not compare the films' pixels")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def film_findings(records: Sequence[Record], split_file: str | None) -> list[Finding]:
    """Films shown twice; certain where the two stand in different splits."""
    readable, thumbnails, findings = [], [], []

    def read(record: Record):  # type: ignore[no-untyped-def]
        try:
            return thumbnail(read_film(record.image_path))
        except FilmError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for record, result in zip(
            records, tqdm(pool.map(read, records), "comparing films", len(records), leave=False), strict=True
        ):
            if isinstance(result, FilmError):
                findings.append(Finding(record.id, "unreadable", "", 1.0, str(result)))
            else:
                readable.append(record)
                thumbnails.append(result)
    splits = {}
    if split_file is not None:
        splits = {id: name for name, ids in load_split_file(split_file).splits.items() for id in ids}
    for pair in same_films(readable, thumbnails):
        findings += pair_findings(pair, splits)
    return findings


def pair_findings(pair: SameFilm, splits: dict[str, str]) -> list[Finding]:
    told = f"shows the same picture as {{}} (correlation {pair.correlation:.3f})"
    kind, severity = "film_twice", 0.5
    if pair.first in splits and pair.second in splits and splits[pair.first] != splits[pair.second]:
        kind, severity = "film_in_two_splits", 1.0
        told += f", which is in {splits[pair.second]}, this in {splits[pair.first]}"
    return [Finding(pair.first, kind, "", severity, told.format(pair.second))]


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
        elif f.severity >= LIKELY:
            proposals.setdefault(f.film, []).append(f"{f.kind} {f.level}: {f.proposal}")
    return RepairFile(source=source, anatomy=anatomy, films=films, proposals=proposals)


if __name__ == "__main__":
    sys.exit(main())
