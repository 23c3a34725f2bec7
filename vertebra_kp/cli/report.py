"""The command report: an evaluation as one HTML file that opens anywhere."""

import argparse

from vertebra_kp.evaluation.store import find_evaluation
from vertebra_kp.reports.evaluation import write_report


def run(arguments: argparse.Namespace) -> None:
    folder = find_evaluation(arguments.evaluation)
    path = arguments.output_file or folder / "report.html"
    write_report(folder, path)
    print(f"written to {path}")
