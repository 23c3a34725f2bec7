"""Damaged files of every kind, and words nobody would type: each is read or refused in one line, no more happens.

Short in every run of the tests, and always the same cases. ``VERTEBRA_KP_FUZZ`` is the number of cases of each
reader of images or labels in the long one; a fifth of it are tried of every other kind (``VERTEBRA_KP_FUZZ=10000``
takes hours). ``VERTEBRA_KP_FUZZ_SEED`` draws other cases.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reliability
from commands import REPOSITORY

TESTS = REPOSITORY / "tests"
PATHS = [REPOSITORY, *(TESTS / name for name in (".", "cli", "data", "models", "fuzz"))]
WORKER = Path(__file__).parent / "worker.py"
STATE = "state.json"
SHORT, LONG = 10, int(os.environ.get("VERTEBRA_KP_FUZZ", "300"))
SEED = int(os.environ.get("VERTEBRA_KP_FUZZ_SEED", "1"))
MOST_WORKERS = 50
ENDED = {-6: "aborted", -9: "was killed", -11: "crashed in C code", 1: "hung, or ended by itself"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads /proc, and signals from exit codes")


def fuzzed(folder: Path, *, cases: int, seed: int) -> list[dict]:
    """A tally of each target; where the worker dies of a case, that is a fault, and another one does the rest."""
    results, tallies = folder / "results.jsonl", dict[str, dict]()
    for attempt in range(MOST_WORKERS):
        own = folder / f"worker {attempt}"
        own.mkdir()
        results.write_text("")
        done = json.dumps({name: tally["cases"] for name, tally in tallies.items()})
        command = [sys.executable, str(WORKER), str(own), str(results), str(seed + attempt), str(cases), done]
        paths = {"PYTHONPATH": os.pathsep.join(map(str, PATHS))}
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        with (own / "stderr").open("wb") as log:
            code = subprocess.call(
                command, env=os.environ | paths | threads, stdout=subprocess.DEVNULL, stderr=log
            )
        for line in results.read_text().splitlines():
            merge(tallies, json.loads(line))
        if code == 0:
            return list(tallies.values())
        merge(tallies, last_of(own, code))
    raise AssertionError(f"{MOST_WORKERS} workers died: {told(tallies.values())}")


def last_of(own: Path, code: int) -> dict:
    """The tally of the target that a worker was at when it died; its last case is a fault."""
    log = (own / "stderr").read_text(errors="replace")
    assert (own / STATE).exists(), log[-2000:]
    state = json.loads((own / STATE).read_text())
    example = state.pop("at")
    if isinstance(example, str):
        kept = own / f"last case{Path(example).suffix}"
        kept.write_bytes(Path(example).read_bytes())
        example = str(kept)
    state["cases"] += 1
    state["faults"][f"the process {ENDED.get(code, f'ended with {code}')}"] = [1, example, log[-500:]]
    return state


def merge(tallies: dict[str, dict], tally: dict) -> None:
    """Add a part of a target's cases to the others."""
    whole = tallies.setdefault(tally["target"], {**tally, "cases": 0, "taken": 0, "refused": 0, "faults": {}})
    for number in ("cases", "taken", "refused"):
        whole[number] += tally[number]
    for fault, (times, *example) in tally["faults"].items():
        before = whole["faults"].get(fault, [0])[0]
        whole["faults"][fault] = [before + times, *example]


def told(tallies) -> list[str]:
    return [
        f"{tally['target']}: {times} of {tally['cases']} cases: {fault} ({message[:120]!r}): {example}"
        for tally in tallies
        for fault, (times, example, message) in tally["faults"].items()
    ]


def check(folder: Path, *, cases: int, seed: int) -> None:
    tallies = fuzzed(folder, cases=cases, seed=seed)
    for tally in tallies:
        read, refused = tally["taken"], tally["refused"]
        done = "done, or the usage" if tally["kind"].startswith("words") else "read"
        seen = f"{refused:,} refused with what is wrong, {read:,} {done}"
        reliability.record(
            tally["kind"], tally["target"], cases=tally["cases"], survived=read + refused, seen=seen
        )
    assert told(tallies) == []


def test_a_few_damaged_files_of_every_kind_are_read_or_refused(tmp_path):
    check(tmp_path, cases=SHORT, seed=SEED)


@pytest.mark.slow
def test_many_damaged_files_of_every_kind_are_read_or_refused(tmp_path):
    check(tmp_path, cases=LONG, seed=SEED)
