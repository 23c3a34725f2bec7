"""Which code has run is told by the commit of the package's files, and by nothing else in the repository."""

import subprocess

import pytest
import torch

from vertebra_kp.core.provenance import PACKAGE, code_version
from vertebra_kp.models.device import hardware, peak_memory_mb


def git(folder, *arguments):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder.parent / "results.csv").write_text("1")
    git(folder.parent, "init")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-m", "first")
    return folder


def test_the_version_is_the_commit_and_says_when_code_was_changed_since(package):
    commit = git(package, "rev-parse", "HEAD")[:12]
    assert code_version(package) == commit
    (package.parent / "results.csv").write_text("2")  # a study writes while it runs
    (package / "scratch.py").touch()
    assert code_version(package) == commit
    (package / "__init__.py").write_text("changed = True")
    assert code_version(package) == f"{commit}-dirty"


def test_a_package_installed_inside_a_repository_that_is_not_its_own_has_its_own_version(package, tmp_path):
    installed = package.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    assert code_version(installed) == code_version(outside)
    assert not code_version(installed).startswith(git(package, "rev-parse", "HEAD")[:12])


def test_this_package_knows_its_version_and_the_machine():
    assert code_version(PACKAGE)
    device = torch.device("cpu")
    assert hardware(device)["name"]
    assert peak_memory_mb(device) > 50  # torch alone takes more
