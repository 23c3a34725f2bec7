"""Every command, killed at random moments and started again, ends with what an undisturbed one gives.

Half of the moments are times, half are writes: just before a file is opened, renamed or removed.
``VERTEBRA_KP_KILLS`` is the number of kills of each command in the long run.
"""

import os
import random
import signal
import sys
import time

import pytest
import reliability
from tries import JOBS, kill

SHORT, LONG = 2, int(os.environ.get("VERTEBRA_KP_KILLS", "6"))
QUICK = ("train", "prepare a cache", "predict", "evaluate")
IN_A_ROW = 3  # kills of the same folder, before it is left to end

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends SIGKILL")


def killed_once(tried, lot: random.Random, *, again: bool) -> bool:
    """Start the command, perhaps again, and kill it at some moment; whether it was still there to be killed."""
    if lot.random() < 0.5:
        return tried.run(again=again, at=lot.randint(1, max(tried.writes, 1))).code == -signal.SIGKILL
    pid = tried.start(again=again)
    time.sleep(lot.uniform(0, tried.seconds))
    kill(pid)
    return tried.nursery.wait(pid).code == -signal.SIGKILL


def check_killed(tried, kills: int, seed: int) -> None:
    lot, done, survived = random.Random(seed), 0, 0
    try:
        while done < kills:
            tried.fresh()
            for number in range(min(IN_A_ROW, kills - done)):
                if not killed_once(tried, lot, again=number > 0):
                    break
                done += 1
            tried.check_resumed()
            survived = done
    finally:
        seen = "started again, the result of an undisturbed run"
        reliability.record("kills at random moments", tried.job.name, cases=done, survived=survived, seen=seen)


@pytest.mark.parametrize("name", QUICK)
def test_a_command_that_is_killed_goes_on_where_it_was(tries, name):
    check_killed(tries(name), SHORT, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_command_that_is_killed_many_times_ends_like_an_undisturbed_one(tries, name):
    check_killed(tries(name), LONG, seed=1)
