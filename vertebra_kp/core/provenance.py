"""With which code something was run, for its report."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def code_version(package: Path = PACKAGE) -> str:
    """Commit of the package's code, ``-dirty`` where files of it were changed since; its version outside git.

    Other files of the repository do not count: results are written while a study runs.
    """
    if _git(package, "ls-files", "__init__.py"):  # installed, it may lie in a repository that is not its own
        commit = _git(package, "rev-parse", "--short=12", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return f"{commit}-dirty" if changed else commit
    try:
        return version(PACKAGE.name)
    except PackageNotFoundError:
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """What git says; empty without git, and outside a repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
