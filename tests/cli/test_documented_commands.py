"""What the README, the docs, the studies, the configs and the Makefile tell to type is what the commands take."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vertebra_kp.cli.main import build_parser, check_needs

REPOSITORY = Path(__file__).parents[2]
PAGES = ("README.md", "docs/**/*.md", "experiments/**/*.md", "vertebra_kp/models/**/*.md", "benchmarks/*.md")
HEADS = ("vertebra_kp/config/files/*.yaml", "experiments/**/*.yaml")
BLOCK = re.compile(r"^ *```(?:bash|sh|console|shell)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:scripts/(\w+)\.py|(?<![\w-])vertebra-kp|-m vertebra_kp)(?!\w)([^;|&)\n]*)")
SCRIPT = re.compile(r"main\(\[\"([\w-]+)\"")
MAKE = shutil.which("make")
STARTS = ("python scripts/evaluate.py", "vertebra-kp evaluate", "python -m vertebra_kp evaluate")
TARGETS = ("quickstart", "aasce-cpu", "la-lumbar")


def calls(text: str) -> list[list[str]]:
    """Command and arguments of every call, without comments and shell variables."""
    found = []
    for script, rest in CALL.findall(text.replace("\\\n", " ")):
        words = [word for word in shlex.split(rest, comments=True) if not word.startswith("$") and word != "..."]
        if script:
            path = REPOSITORY / "scripts" / f"{script}.py"
            words = [SCRIPT.search(path.read_text(encoding="utf-8"))[1], *words]
        found.append(words)
    return found


def head(text: str) -> str:
    """The comment at the top of a YAML file; a line that begins with a flag belongs to the one before."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    return re.sub(r"\\?\n--", " --", "\n".join(lines))


def documented() -> Iterator[tuple[str, list[str]]]:
    for pattern in PAGES:
        for page in sorted(REPOSITORY.glob(pattern)):
            blocks = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
            yield from ((str(page.relative_to(REPOSITORY)), call) for call in calls(blocks))
    for pattern in HEADS:
        for page in sorted(REPOSITORY.glob(pattern)):
            found = calls(head(page.read_text(encoding="utf-8")))
            yield from ((str(page.relative_to(REPOSITORY)), call) for call in found)
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


def parse(call: list[str]) -> None:
    arguments = build_parser().parse_args(call)
    check_needs(arguments)


@pytest.mark.parametrize(
    ("page", "call"), [pytest.param(*found, id=" ".join([found[0], *found[1]])) for found in documented()]
)
def test_a_documented_command_is_taken(page, call):
    parse(call)


def test_every_source_of_commands_gives_some():
    pages = {page for page, _ in documented()}
    assert {
        "README.md",
        "experiments/13_folds_second_look/README.md",
        "vertebra_kp/config/files/quickstart.yaml",
        "experiments/12_learning_curve/study.yaml",
    } <= pages
    assert ("Makefile" in pages) == (MAKE is not None)


@pytest.mark.parametrize(
    "start", ["python scripts/evaluate.py", "vertebra-kp evaluate", "python -m vertebra_kp evaluate"]
)
def test_a_documented_command_that_is_wrong_is_found(start, capsys):
    (call,) = calls(f"{start} --network best.pt \\\n    --split fold0 --out OUT  # no source")
    with pytest.raises(SystemExit):
        parse(call)
    assert "--source" in capsys.readouterr().err
