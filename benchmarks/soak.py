"""Training and prediction in a loop for some minutes: memory, open files and speed of every round, into a CSV.

python benchmarks/soak.py --minutes 60 [--out soak.csv] [--workers 1]

All rounds are in one process, as in a notebook or a server: what one leaves behind, the next ones add to. A round
trains a small network on synthetic images anew, evaluates it, and predicts images with it. At the end a line of
text says how memory, open files and speed of the last third of rounds compare with those of the second.
"""

import argparse
import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from vertebra_kp.cli.main import main as command
from vertebra_kp.config.io import find_config, load_config
from vertebra_kp.core.files import write_csv

IMAGES, STEPS = 24, 8
SMALL = (
    *("data.input_size=[128,64]", "train.batch_size=2", "train.batch_norm_calibration=2", "train.start_from=null"),
    *(f"data.phantom.films={2 * STEPS}", "data.phantom.validation_films=4", "train.evaluate_films=2"),
)
COLUMNS = ("round", "minutes", "memory_mb", "open_files", "threads", "steps_per_second", "images_per_second")
FIGURES = COLUMNS[2:]

Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("soak.csv"))
    parser.add_argument("--workers", type=int, default=1, help="processes that make images for the training")
    asked = parser.parse_args()
    rows: list[Row] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        done("phantom", "--num-images", IMAGES, "--size", 256, 128, "--out", place / "images")
        while (time.monotonic() - start) / 60 < asked.minutes:
            speeds = one_round(place, asked.workers)
            minutes = round((time.monotonic() - start) / 60, 2)
            rows.append({"round": len(rows) + 1, "minutes": minutes, **held(), **speeds})
            write_csv(COLUMNS, rows, asked.out)  # also when it is stopped, the rows are there
            print(*(f"{name} {rows[-1][name]:g}" for name in COLUMNS), sep=", ", flush=True)
    print(verdict(rows))


def one_round(place: Path, workers: int) -> Row:
    """Train, evaluate, predict; how fast."""
    phases = range(len(load_config(find_config("quickstart")).train.phases))
    settings = [*SMALL, f"data.workers={workers}", *(f"train.phases.{i}.epochs=1" for i in phases)]
    run, network = place / "run", place / "run" / "checkpoints" / "last.pt"
    begin = time.monotonic()
    done("train", "--config", "quickstart", "--run-dir", run, "--set", *settings)
    trained = time.monotonic()
    done("evaluate", "--network", network, "--validation", "--out", run / "evaluation")
    measured = time.monotonic()
    done("predict", place / "images", "--network", network, "--report", "--out", place / "predicted")
    predicted = time.monotonic()
    for folder in (run, place / "predicted"):
        shutil.rmtree(folder)
    return {
        "steps_per_second": round(len(phases) * STEPS / (trained - begin), 3),
        "images_per_second": round(IMAGES / (predicted - measured), 3),
    }


def done(name: str, *words: object) -> None:
    """A command in this process; what it prints is shown only where it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command([name, *map(str, words)])
    logging.getLogger().handlers.clear()  # one that writes to the text of a round that is over
    if code:
        sys.exit(f"{name} ended with {code}: {said.getvalue()[-2000:]}")


def held() -> Row:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def verdict(rows: list[Row]) -> str:
    """Medians of the second and of the last third of rounds, and their difference."""
    third = len(rows) // 3
    if not third:
        return f"{len(rows)} rounds are too few to compare"
    parts = []
    for name in FIGURES:
        second, last = (median(row[name] for row in part) for part in (rows[third : 2 * third], rows[-third:]))
        parts.append(f"{name} {second:g} -> {last:g} ({100 * (last - second) / second:+.1f} %)")
    return f"{len(rows)} rounds; second and last third: {'; '.join(parts)}"


if __name__ == "__main__":
    main()
