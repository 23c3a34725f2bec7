"""Training and evaluation, started again and again with processes that read images: none of them hangs.

Such a hang is a matter of chance: a process is copied while a thread of it holds a lock. ``VERTEBRA_KP_STARTS`` is
the number of starts of each kind in the long run.
"""

import os
import shutil
import sys

import pytest
import reliability
from tries import JOBS, Nursery

SHORT, LONG = 1, int(os.environ.get("VERTEBRA_KP_STARTS", "3"))
WORKERS = (0, 2, 4)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture(scope="module", params=["1", None], ids=["one thread", "threads unset"])
def threads(request, place):
    """What OMP_NUM_THREADS says, and a nursery that was started so."""
    started = Nursery(place, threads=request.param)
    yield request.param, started
    started.close()


def check_starts(threads, small, place, name: str, workers: int, starts: int) -> None:
    number, nursery = threads
    said = "OMP_NUM_THREADS unset" if number is None else f"OMP_NUM_THREADS={number}"
    out, done = place / f"started {name}", 0
    try:
        for _ in range(starts):
            shutil.rmtree(out, ignore_errors=True)
            words = [*JOBS[name].first(small, out), "--set", f"data.workers={workers}"]
            ended = nursery.wait(nursery.start(words, out))
            assert ended.code == 0, ended.output[-1500:]
            done += 1
    finally:
        kind, seen = "starts with processes that read images", "the command ends as it should, none hangs"
        reliability.record(kind, f"{name}, {workers} workers, {said}", cases=starts, survived=done, seen=seen)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_command_with_workers_ends(threads, small, place, name):
    check_starts(threads, small, place, name, workers=2, starts=SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_command_with_workers_ends_every_time(threads, small, place, name, workers):
    check_starts(threads, small, place, name, workers, LONG)
