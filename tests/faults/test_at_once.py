"""Two processes in one folder: one does the work, the other waits or is refused, and the result is that of one."""

import sys

import pytest
import reliability
from tries import JOBS

QUICK = ("train", "prepare a cache", "predict")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


def check_two(tried) -> None:
    survived = 0
    try:
        tried.fresh()
        ended = [tried.nursery.wait(pid) for pid in (tried.start(), tried.start())]
        for one in ended:
            one.check()
            assert one.code in (0, 1)
        assert 0 in [one.code for one in ended], [one.output[-500:] for one in ended]
        tried.check_resumed()
        survived = 1
    finally:
        seen = "one works; the other is refused in one line, or waits"
        reliability.record("two processes in one folder", tried.job.name, cases=1, survived=survived, seen=seen)


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_do_the_work_of_one(tries, name):
    check_two(tries(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in JOBS if name not in QUICK])
def test_two_processes_of_any_command_do_the_work_of_one(tries, name):
    check_two(tries(name))
