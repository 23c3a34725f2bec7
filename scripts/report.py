"""Write the report of an evaluation: one HTML file that opens anywhere."""

import argparse
import sys
from pathlib import Path

from vertebra_kp.errors import UserError
from vertebra_kp.evaluation import find_evaluation
from vertebra_kp.report import write_report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder that evaluate.py wrote to, or one that holds evaluation/")
    parser.add_argument("--out", type=Path, help="default: report.html in that folder")
    arguments = parser.parse_args()
    folder = find_evaluation(arguments.run)
    out = arguments.out or folder / "report.html"
    try:
        write_report(folder, out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
