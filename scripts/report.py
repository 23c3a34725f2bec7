"""Write the report of an evaluation: one HTML file that opens anywhere."""

import argparse
import sys
from pathlib import Path

from vertebra_kp.cli.command_line import exit_code
from vertebra_kp.evaluation.store import find_evaluation
from vertebra_kp.reports.evaluation import write_report


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder that evaluate.py wrote to, or one that holds evaluation/")
    parser.add_argument("--out", type=Path, help="default: report.html in that folder")
    arguments = parser.parse_args()
    folder = find_evaluation(arguments.run)
    out = arguments.out or folder / "report.html"
    write_report(folder, out)
    print(f"written to {out}")


if __name__ == "__main__":
    sys.exit(exit_code(run))
