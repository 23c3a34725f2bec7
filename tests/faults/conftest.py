"""One place and one process for all faults: what they need is made once."""

import shutil
import tempfile
from pathlib import Path

import pytest
from small_run import make_all
from tries import JOBS, Nursery, Try


@pytest.fixture(scope="session")
def place():
    """A folder for the session, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="faults-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def small(place, nursery):  # which starts meanwhile
    """Images, configs, and what a training of them gives."""
    folder = place / "small"
    folder.mkdir()

    return make_all(folder)


@pytest.fixture(scope="session")
def nursery(place):
    started = Nursery(place)
    yield started
    started.close()


@pytest.fixture(scope="session")
def tries(nursery, small, place):
    """Every job by its name, done once without a fault when it is first asked for."""
    done = {}

    def of(name):
        if name not in done:
            done[name] = Try(nursery, JOBS[name], small, place)
            done[name].undisturbed()
        return done[name]

    return of
