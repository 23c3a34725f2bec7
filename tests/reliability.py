"""What the harness of faults and damaged inputs has shown: ``docs/reliability.csv``, and the table made of it.

``VERTEBRA_KP_RELIABILITY=1`` lets the tests in ``tests/faults`` and ``tests/fuzz`` write what they find there; run
as a program, this file brings the table in ``docs/reliability.md`` up to date.
"""

import csv
import os
from pathlib import Path

from filelock import FileLock

from vertebra_kp.core.files import write_csv, write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, PAGE = DOCS / "reliability.csv", DOCS / "reliability.md"
COLUMNS = ("kind", "class", "cases", "survived", "seen")
BEGIN, END = "<!-- table: made of reliability.csv by tests/reliability.py -->", "<!-- end of table -->"
WANTED = "VERTEBRA_KP_RELIABILITY"


def record(kind: str, name: str, *, cases: int, survived: int, seen: str) -> None:
    """Put a row in place of the older one of the same class, if the environment asks for it, and of a case."""
    if not os.environ.get(WANTED) or cases == 0:
        return
    with FileLock(RESULTS.with_suffix(".lock")):
        rows = {(row["kind"], row["class"]): row for row in read()}
        values = (kind, name, str(cases), str(survived), seen)
        rows[kind, name] = dict(zip(COLUMNS, values, strict=True))
        write_csv(COLUMNS, [rows[key] for key in sorted(rows)], RESULTS)


def read() -> list[dict[str, str]]:
    if not RESULTS.is_file():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table() -> str:
    lines = ["| fault or input | cases | survived | what the user sees |", "|---|---:|---:|---|"]
    kind = None
    for row in read():
        if row["kind"] != kind:
            kind = row["kind"]
            lines.append(f"| **{kind}** | | | |")
        cases, survived = (f"{int(row[name]):,}" for name in ("cases", "survived"))
        lines.append(f"| {row['class']} | {cases} | {survived} | {row['seen']} |")
    return "\n".join(lines)


def page() -> str:
    """The page with the table of now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{PAGE.name} lacks {BEGIN} ... {END}"
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    write_text(page(), PAGE)
