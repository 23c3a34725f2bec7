"""Run what is missing of a study, one run after another, and print its table; start it again to go on."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from vertebra_kp.ablation import Planned, Study, read_study, table
from vertebra_kp.engine import EXIT_INTERRUPTED
from vertebra_kp.errors import UserError

TRAIN = Path(__file__).with_name("train.py")


def run_one(study: Study, run: Planned) -> int:
    """Train in a process of its own: a run that fails leaves the study alive. Returns the exit code."""
    started = (run.run_dir / "checkpoints" / "last.pt").exists()
    command = [sys.executable, str(TRAIN), "--config", str(study.base), "--run-dir", str(run.run_dir)]
    command += ["--set", *run.overrides, "--resume" if started else "--overwrite"]
    process = subprocess.Popen(command)
    # Ctrl-C reaches the run itself too; a SIGTERM is handed on. Either way it writes a checkpoint first.
    old = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, old)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with study.yaml, such as experiments/01_freeze_schedule")
    parser.add_argument("--table", action="store_true", help="only print the table of what is finished")
    arguments = parser.parse_args()
    try:
        study = read_study(arguments.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = []
    for run in [] if arguments.table else study.missing():
        print(f"== {run.variant}, seed {run.seed}", flush=True)
        code = run_one(study, run)
        if code == EXIT_INTERRUPTED:
            return EXIT_INTERRUPTED
        if code:
            failed.append(f"{run.variant}, seed {run.seed}: exit code {code}")
        else:
            study.record(run)
    print(table(study))
    for failure in failed:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
