"""requirements-lock.txt has, with hashes, a version of everything that setup.py asks for, and one that fits."""

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8")


def locked() -> dict[str, str]:
    """Versions by name, of entries that have a hash."""
    pattern = re.compile(r"([A-Za-z0-9._-]+)==([^ ;]+)[^\n]*\\\n +--hash=sha256:[0-9a-f]{64}\b")
    matches = [pattern.match(entry) for entry in re.split(r"\n(?! )", LOCK.strip())]
    assert all(matches), "an entry without a hash"
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def asked_for() -> list[Requirement]:
    """All that setup.py names, read off a run of it that installs nothing."""
    code = (
        "import runpy, setuptools; got = {}; setuptools.setup = got.update; runpy.run_path('setup.py');"
        "print(*got['install_requires'], *sum(got['extras_require'].values(), []), sep='\\n')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, text=True, capture_output=True)
    return [Requirement(line) for line in run.stdout.splitlines()]


def test_what_setup_py_asks_for_is_locked_in_a_version_that_fits():
    versions = locked()
    missing = [str(one) for one in asked_for() if canonicalize_name(one.name) not in versions]
    assert missing == [], "make lock"
    for one in asked_for():
        version = versions[canonicalize_name(one.name)]
        assert one.specifier.contains(version, prereleases=True), f"{one}, locked is {version}: make lock"


def test_the_lock_file_names_no_place_to_download_from():
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links", LOCK)
