"""The built wheel alone, in a clean environment outside the checkout: everything it needs is inside."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
TINY = [
    "data.input_size=[64,32]",
    "data.phantom.films=4",
    "data.phantom.validation_films=2",
    "data.workers=0",
    "train.batch_size=2",
    "train.precision=off",
    "train.phases=[{name: all, epochs: 1}]",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment with the wheel; what it depends on is borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # copied: a build leaves its own folders, and may pack what an earlier one left
    shutil.copytree(ROOT / "vertebra_kp", source / "vertebra_kp", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    install = ["install", "--no-deps", "--ignore-installed"]  # whatever PYTHONPATH shows pip
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install, wheel], check=True)
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    # Behind the wheel on the path; links there to the checkout (.pth files) are not followed from here.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(source)
    return folder / "env"


@pytest.fixture
def run(environment, tmp_path, monkeypatch):
    """Runs a program of the environment in an empty folder."""
    for name in ("PYTHONPATH", "VERTEBRA_KP_AASCE"):
        monkeypatch.delenv(name, raising=False)

    def run(program: str, *arguments: str | Path) -> str:
        command = [environment / "bin" / program, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_package_is_that_of_the_wheel_and_its_command_names_its_version(run, environment):
    code = "import vertebra_kp, importlib.metadata as m; print(vertebra_kp.__file__, m.version('vertebra_kp'))"
    place, version = run("python", "-c", code).split()
    assert Path(place).is_relative_to(environment)
    assert version in run("vertebra-kp", "--version")


def test_every_file_that_is_no_module_is_in_the_wheel(run, environment):
    """Compared with what git holds: configs, split files, weights, templates."""
    listed = subprocess.run(["git", "ls-files", "vertebra_kp"], cwd=ROOT, text=True, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    (packages,) = environment.glob("lib/python*/site-packages")
    assert [name for name in listed.stdout.split() if not (packages / name).is_file()] == []


def test_a_shipped_config_trains_by_its_name(run, tmp_path):
    run("vertebra-kp", "train", "--config", "quickstart", "--run-dir", "run", "--set", *TINY)
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_the_published_network_predicts(run, tmp_path):
    run("vertebra-kp", "phantom", "--anatomy", "ap_whole_spine", "--num-images", "1", "--out", "images")
    image = next(path for path in (tmp_path / "images").rglob("*.png") if "sheet" not in path.name)
    run("vertebra-kp", "predict", "--network", "ap-spine", image, "--out", "out")
    assert list((tmp_path / "out").rglob("*.json"))


def test_a_study_outside_any_checkout_runs(run, tmp_path):
    study = {
        "base": "quickstart",
        "overrides": TINY,
        "seeds": [0],
        "baseline": "as_it_is",
        "variants": {"as_it_is": [], "slower": ["train.phases.0.lr=1e-4"]},
    }
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text(yaml.safe_dump(study))
    run("vertebra-kp", "ablate", "study")
    rows = (tmp_path / "study" / "results.csv").read_text().splitlines()
    assert len(rows) == 3  # a header and two runs
