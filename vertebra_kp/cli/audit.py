"""The command audit: what is wrong with a data set's labels, as a table, a page and a repair file."""

import argparse

from vertebra_kp.audit.disagreement import disagreement_findings
from vertebra_kp.audit.level_agreement import level_findings
from vertebra_kp.audit.page import write_page
from vertebra_kp.audit.survey import LIKELY, pixel_findings, record_findings, repair_file_of, write_rows
from vertebra_kp.cli.film_choice import labelled_records
from vertebra_kp.cli.network_choice import choose_network
from vertebra_kp.data.repair import apply_repairs, write_repair_file
from vertebra_kp.data.splits import load_split_file


def run(arguments: argparse.Namespace) -> None:
    source, (records, schema) = arguments.source, labelled_records(arguments, stored_order=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    predictor = choose_network(arguments, schema) if arguments.network else None
    splits = load_split_file(arguments.split_file).splits if arguments.split_file else {}
    split_of = {id: name for name, ids in splits.items() for id in ids}
    findings = record_findings(records, schema, split_of)
    if not arguments.labels_only:
        findings += pixel_findings(records, schema, split_of)
        mended = apply_repairs(records, repair_file_of(source, schema.name, findings), schema)
        findings += level_findings(mended, schema)
    if predictor is not None:
        findings += disagreement_findings(records, predictor)
    findings.sort(key=lambda finding: -finding.severity)
    write_rows(arguments.out / "audit.csv", findings)
    write_repair_file(repair_file_of(source, schema.name, findings), arguments.out / "repair.json")
    write_page(arguments.out / "audit.html", f"Audit of {source}", findings, records, schema)
    likely = {finding.film for finding in findings if finding.severity >= LIKELY}
    print(
        f"{len(records)} images: {len(findings)} findings, {len(likely)} images at severity {LIKELY} and above; "
        f"written to {arguments.out}: audit.html, audit.csv, repair.json"
    )
