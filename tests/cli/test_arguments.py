"""One name, one type, one meaning, one default; help that is quick and fits a screen; one way to end."""

import argparse
import os
import signal
import subprocess
import sys
from typing import get_args

import pytest
from commands import REPOSITORY, run, run_apart

from vertebra_kp.audit.level_agreement import MOST_PAIRS
from vertebra_kp.cli.arguments import ARGUMENTS
from vertebra_kp.cli.commands import COMMANDS
from vertebra_kp.cli.main import build_parser, main
from vertebra_kp.config.schema import Names
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.disturb import DISTURBANCES
from vertebra_kp.data.phantom import PRESETS
from vertebra_kp.data.sources import SOURCES
from vertebra_kp.data.writers import WRITERS
from vertebra_kp.evaluation.uncertainty.calibration import COVERAGE
from vertebra_kp.measures.instability import Criterion

ALIASES = {
    "--checkpoint": "network",
    "--weights": "network",
    "--films": "num_images",
    "--copy-films": "copy_images",
}


def parsers():
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices


def actions():
    """Every action of every command, with each name it is taken by."""
    for command, parser in parsers().items():
        for action in parser._actions:
            names = [name for name, taken in parser._option_string_actions.items() if taken is action]
            yield from ((command, name, action) for name in names or [action.dest])


def test_a_name_has_one_type_one_meaning_and_one_default_in_all_commands():
    meanings = {}
    for command, name, action in actions():
        meaning = (
            action.dest,
            action.type,
            action.help,
            action.default,
            action.nargs,
            action.choices,
            action.metavar,
        )
        first, known = meanings.setdefault(name, (command, meaning))
        assert meaning == known, f"{name} of {command} is not that of {first}"


def test_every_argument_that_is_defined_is_taken_by_a_command_and_explained():
    taken = {name.removeprefix("--").removeprefix("no-") for _, name, _ in actions()} - {"h", "-h", "help"}
    aliases = {alias for content in ARGUMENTS.values() for alias in content.get("aliases", ())}
    assert taken == {*ARGUMENTS} | aliases
    assert all(action.help for _, _, action in actions())


def test_older_names_are_taken_and_not_shown():
    found = {name: action.dest for _, name, action in actions() if name in ALIASES}
    assert found == ALIASES
    for command, parser in parsers().items():
        assert not [name for name in ALIASES if name in parser.format_help()], command


def test_choices_and_defaults_are_those_that_the_package_knows():
    choices = {name: content["choices"] for name, content in ARGUMENTS.items() if "choices" in content}
    assert set(choices["source"]) == {*SOURCES, "phantom"}
    assert choices["anatomy"] == list(SCHEMAS)
    assert choices["names"] == list(get_args(Names))
    assert choices["preset"] == list(PRESETS)
    assert choices["to"] == sorted(WRITERS)
    assert choices["kinds"] == ARGUMENTS["kinds"]["default"] == list(DISTURBANCES)
    defaults = {name: action.default for _, name, action in actions()}
    assert defaults["--coverage"] == COVERAGE
    assert defaults["--most"] == MOST_PAIRS
    assert (defaults["--translation-mm"], defaults["--angle-deg"]) == (3.0, 12.0)
    assert Criterion() == Criterion(3.0, 12.0)


@pytest.mark.parametrize(
    "words",
    [
        ["ablate", "study", "--jobs", "0"],
        ["calibrate", "--network", "a", "--source", "phantom", "--coverage", "1"],
        ["calibrate", "--network", "a", "--source", "phantom", "--num-images", "0"],
        ["evaluate", "--network", "a", "--source", "phantom", "--seed", "-1", "--out", "o"],
        ["evaluate", "--network", "a", "--source", "phantom", "--other-view", "1", "--out", "o"],
        ["predict", "a.png", "--network", "a", "--out", "o", "--report", "--spacing-mm", "nan"],
        ["prepare", "--config", "aasce", "--shards", "many"],
        ["cross-validate", "--config", "aasce", "--out", "o", "--seeds", "0", "-2"],
    ],
)
def test_a_number_out_of_bounds_is_refused_with_the_bounds(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["predict", "a.png", "--network", "a", "--out", "o", "--spacing-mm", "0.1"],
            "--spacing-mm needs --report",
        ),
        (
            ["predict", "a.png", "--network", "a", "--out", "o", "--keep-identity"],
            "--keep-identity needs --dicom-out",
        ),
        (["calibrate", "--network", "a", "--ensemble", "b", "--validation"], "--ensemble needs --output-file"),
        (["calibrate", "--network", "ap-spine", "--validation"], "published weights stays as it is"),
        (["ablate", "study", "--sbatch-option=--x"], "--sbatch-option needs --slurm"),
        (["audit", "--source", "csv", "--out", "o", "--set", "codec.decode=dark"], "--set needs --network"),
        (["cross-validate", "--config", "aasce", "--out", "o", "--seeds", "1", "1"], "--seeds 1 1: must differ"),
        (["label-noise", "--source", "phantom", "--pairs", "p"], "--source phantom has no files with labels"),
        (["phantom", "--num-images", "1"], "nothing to write"),
        (
            ["phantom", "--anatomy", "la_cervical", "--out", "o"],
            "made of ap_lumbar, ap_whole_spine, la_lumbar",
        ),
        (["export-weights", "--network", "a", "--output-file", "a.pt"], "must end in .safetensors"),
    ],
)
def test_arguments_that_do_not_go_together_are_wrong_usage(words, complaint):
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: vertebra-kp {words[0]} ")
    assert complaint in done.stderr


def test_synthetic_images_have_the_seed_and_number_of_their_command(monkeypatch):
    given = {}
    for command in ("evaluate", "calibrate", "robustness"):
        monkeypatch.setattr(f"vertebra_kp.cli.{command}.run", lambda asked: given.update({asked.command: asked}))
        more = [] if command == "calibrate" else ["--out", "OUT"]
        assert main([command, "--network", "a", "--source", "phantom", *more]) == 0
    assert {command: (asked.seed, asked.num_images) for command, asked in given.items()} == {
        "evaluate": (2_000_003, 200),
        "calibrate": (3_000_003, 500),
        "robustness": (4_000_003, 50),
    }
    for command in ("evaluate", "calibrate", "robustness", "phantom"):
        for name, default in COMMANDS[command].defaults.items():
            assert f"{default} ({command})" in ARGUMENTS[name]["help"]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("the field, the value, the remedy"), 1, "error: the field, the value, the remedy\n"),
        (PermissionError(13, "Permission denied", "out"), 1, "error: [Errno 13] Permission denied: 'out'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_stops_a_command_is_one_line_and_an_exit_code(error, code, text, monkeypatch):
    def stopped(_):
        raise error

    monkeypatch.setattr("vertebra_kp.cli.report.run", stopped)
    done = run("report", "folder")
    assert (done.returncode, done.stderr) == (code, text)


def test_a_reader_that_has_enough_gives_no_error():
    command = f"{sys.executable} -m vertebra_kp config-schema | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert COMMANDS[command].help[1:] in " ".join(done.stdout.split())


def test_help_lists_all_commands_on_one_screen_without_loading_torch():
    code = "import sys\nfrom vertebra_kp.cli.main import main\ntry:\n    main(['--help'])\nfinally:\n    "
    code += "assert not {'torch', 'numpy', 'cv2', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


def test_the_shell_completes_commands_flags_and_choices(tmp_path):
    def completed(line):
        found = tmp_path / "found"
        environment = {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        }
        run_apart("", env={**os.environ, **environment, "PYTHONPATH": str(REPOSITORY)})
        return set(found.read_text().replace("\013", "\n").split())

    assert completed("vertebra-kp cali") == {"calibrate"}
    assert completed("vertebra-kp evaluate --net") == {"--network"}
    assert completed("vertebra-kp evaluate --check") == set()
    assert completed("vertebra-kp phantom --preset ") == {"standard", "hard"}


def test_the_version_is_told():
    assert run_apart("--version").stdout.startswith("vertebra-kp ")


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "scripts").glob("*.py")))
def test_a_script_is_a_call_of_its_command(script):
    text = (REPOSITORY / "scripts" / script).read_text(encoding="utf-8")
    called = [command for command in COMMANDS if f'main(["{command}", *sys.argv[1:]])' in text]
    assert len(called) == 1
    assert len(text.splitlines()) <= 8


@pytest.mark.skipif(sys.platform == "win32", reason="asks what a signal ended")
def test_an_import_that_ctrl_c_interrupts_shows_no_traceback(tmp_path):
    (tmp_path / "argcomplete.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    places = os.pathsep.join((str(tmp_path), str(REPOSITORY)))
    done = subprocess.run(
        [sys.executable, "-m", "vertebra_kp", "config-schema"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_script_ends_as_its_command():
    done = subprocess.run(
        [sys.executable, "scripts/report.py", "no_folder"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no_folder/evaluation.npz does not exist")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "", "--network", "a", "--out", "o"],
        ["predict", "a.png", "--network", "", "--out", "o"],
        ["predict", "a.png", "--network", "a", "--out", ""],
        ["train", "--config", ""],
        ["report", "", "--output-file", "o"],
    ],
)
def test_an_empty_name_is_refused_and_does_not_stand_for_the_folder_at_hand(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "is empty; name a file or folder" in capsys.readouterr().err
