"""What the README, the studies and the Makefile tell to type is what the scripts take."""

import argparse
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = ("README.md", "docs/*.md", "experiments/**/*.md", "vertebra_kp/published/**/*.md", "benchmarks/*.md")
BLOCK = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"scripts/\w+\.py[^;|&\n]*")
MAKE = shutil.which("make")
TARGETS = ("quickstart", "aasce-cpu", "la-lumbar")


def calls(text: str) -> list[list[str]]:
    """Script and arguments of every call, without comments and shell variables."""
    lines = CALL.findall(text.replace("\\\n", " "))
    words = (shlex.split(line, comments=True) for line in lines)
    return [[word for word in call if not word.startswith("$")] for call in words]


def documented() -> Iterator[tuple[str, list[str]]]:
    for pattern in PAGES:
        for page in sorted(REPOSITORY.glob(pattern)):
            blocks = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
            yield from ((str(page.relative_to(REPOSITORY)), call) for call in calls(blocks))
    if MAKE is None:  # Windows
        return
    made = subprocess.run(
        [MAKE, "--always-make", "--dry-run", *TARGETS, "BUU_LSPINE=FOLDER"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    yield from (("Makefile", call) for call in calls(made.stdout))


class Parsed(Exception):
    """The arguments were taken; the work itself is not done here."""


def parse(call: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser) -> None:
        parse_args(self)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr(sys, "argv", call)
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    with pytest.raises(Parsed):
        runpy.run_path(str(REPOSITORY / call[0]), run_name="__main__")


@pytest.mark.parametrize(("page", "call"), [pytest.param(*found, id=" ".join(found[1])) for found in documented()])
def test_a_documented_command_is_taken(page, call, monkeypatch):
    parse(call, monkeypatch)


def test_every_source_of_commands_gives_some():
    pages = {page for page, _ in documented()}
    assert {"README.md", "experiments/13_folds_second_look/README.md"} <= pages
    assert ("Makefile" in pages) == (MAKE is not None)


def test_a_command_that_a_script_refuses_is_told(monkeypatch, capsys):
    (call,) = calls("python scripts/evaluate.py --checkpoint best.pt \\\n    --split fold0 --out OUT  # no source")
    with pytest.raises(SystemExit):
        parse(call, monkeypatch)
    assert "--source" in capsys.readouterr().err
