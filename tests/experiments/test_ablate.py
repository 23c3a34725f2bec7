"""The command ablate: what it starts, what it does when runs fail or are stopped; no kill changes a table."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_job import ROOT, tiny_config

from vertebra_kp.cli.main import main
from vertebra_kp.config.io import find_config, load_config, save_config
from vertebra_kp.core.exit_codes import INTERRUPTED
from vertebra_kp.experiments import launch
from vertebra_kp.experiments.ledger import Ledger
from vertebra_kp.experiments.study import read_study
from vertebra_kp.training.run_folder import run_folder_lock

STUDY = """
base: ../base.yaml
seeds: [0, 1]
baseline: plain
variants:
  plain: []
  wide: ["codec.sigma=2.5"]
measured:
  argmax: ["codec.decode=argmax"]
"""
# In place of the commands train and evaluate: no network, an error that follows from the settings. Sigma 13 fails,
# and a file `hold` beside the run folders makes a run wait for SIGTERM. The command ablate starts the same again.
STAND_IN = """
import argparse, json, signal, sys, time
from pathlib import Path
from vertebra_kp.config.io import load_config, override_config, save_config
if sys.argv[1] == "ablate":
    from vertebra_kp.cli.main import main
    from vertebra_kp.experiments import launch
    launch.PROGRAM = (sys.executable, __file__)
    sys.exit(main(sys.argv[1:]))
parser = argparse.ArgumentParser()
parser.add_argument("command")
for name in ("--config", "--run-dir", "--out", "--network"):
    parser.add_argument(name, type=Path)
parser.add_argument("--set", nargs="+", default=[])
for name in ("--resume", "--overwrite", "--validation"):
    parser.add_argument(name, action="store_true")
asked = parser.parse_args()
folder = asked.run_dir or asked.out
source = asked.config or asked.network.parents[1] / "config.yaml"
config = load_config(source, asked.set)
print("this is a stand-in")
if config.codec.sigma == 13:
    sys.exit("sigma is unlucky")
hold = folder.parent / "hold"
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
(folder.parent / "started").touch()
while hold.exists():
    time.sleep(0.02)
error = config.codec.sigma + config.train.seed / 4 + (config.codec.decode == "argmax")
figures = {"mre_px": error, "median_px": error / 2, "level_shift_rate": 0.0}
(folder / "films.csv").write_text(f"id,mre_px\\na,{error - 0.5}\\nb,{error + 0.5}\\n")
if asked.run_dir:
    (folder / "checkpoints").mkdir(exist_ok=True)
    save_config(config, folder / "config.yaml")
    figures = {"steps": 4, "training_seconds": 2.0, "validation": figures}
(folder / "metrics.json").write_text(json.dumps(figures))
"""
# The real commands with the thin backbone.
THIN = """
import sys
sys.path.insert(0, {tests!r})
from tiny_job import thin_efficientnet
from vertebra_kp.cli.main import main
from vertebra_kp.experiments import launch
from vertebra_kp.models import library
launch.PROGRAM = (sys.executable, __file__)
library.efficientnet_v2_s = thin_efficientnet
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def no_network_is_built(monkeypatch):
    monkeypatch.setattr("vertebra_kp.experiments.collect._cost", lambda *_: (25_316_000, 1_234_567_000))


@pytest.fixture
def folder(tmp_path):
    return new_study(tmp_path, "01_first")


def new_study(parent, name, text=STUDY, **config):
    save_config(tiny_config(**config), parent / "base.yaml")
    (parent / name).mkdir()
    (parent / name / "study.yaml").write_text(text)
    return parent / name


@pytest.fixture
def ablate(tmp_path, monkeypatch):
    """Call the command in this process and take back its handlers of signals; returns the exit code."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(STAND_IN)
    monkeypatch.setattr(launch, "PROGRAM", (sys.executable, str(stand_in)))

    def call(*arguments):
        old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return main(["ablate", *map(str, arguments)])
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    return call


def commands_in(log):
    return [line for line in log.read_text().splitlines() if line.startswith("$ ")]


def test_a_study_runs_trains_before_it_measures_and_leaves_table_plots_and_logs(ablate, folder, capsys):
    assert ablate(folder, "--jobs", 2) == 0
    printed = capsys.readouterr().out
    assert (folder / "table.md").read_text() in printed
    assert f"tensorboard --logdir {folder / 'runs'}" in printed
    assert (folder / "plots" / "differences.png").is_file()
    entries = {entry.key: entry for entry in Ledger(folder).entries()}
    assert set(entries) == {(variant, seed) for variant in ("plain", "wide", "argmax") for seed in (0, 1)}
    # The stand-in's error is sigma + seed / 4, and one more for argmax; tiny_config has the default sigma 1.5.
    assert float(entries["argmax", 1].row["mre_px"]) == 1.5 + 1 / 4 + 1
    assert "this is a stand-in" in (folder / "runs" / "wide-0" / "log.txt").read_text()
    assert ablate(folder) == 0
    assert len(commands_in(folder / "runs" / "plain-0" / "log.txt")) == 1


def test_a_variant_that_fails_is_told_with_the_end_of_its_log_and_the_rest_goes_on(ablate, folder, capsys):
    study = folder / "study.yaml"
    study.write_text(STUDY.replace("sigma=2.5", "sigma=13"))
    assert ablate(folder) == 1
    captured = capsys.readouterr()
    assert "failed: wide, seed 0, exit code 1" in captured.err
    assert "sigma is unlucky" in captured.err
    assert captured.err.rstrip().endswith("failed: wide, seed 0; wide, seed 1")
    assert "Not finished: 2 of 6 runs." in captured.out
    assert len(Ledger(folder).entries()) == 4


def test_what_cannot_be_measured_for_want_of_a_checkpoint_is_told(ablate, folder, capsys):
    (folder / "study.yaml").write_text(STUDY.replace("plain: []", 'plain: ["codec.sigma=13"]'))
    assert ablate(folder) == 1
    assert "failed: plain, seed 0; plain, seed 1; argmax, seed 0; argmax, seed 1" in capsys.readouterr().err


def sigterm_when_there(path):
    """To this process, as soon as the file is there."""

    def wait_and_send():
        while not path.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_and_send, daemon=True).start()


def test_sigterm_is_handed_to_the_runs_and_the_next_start_goes_on(ablate, folder):
    runs = folder / "runs"
    runs.mkdir()
    (runs / "hold").touch()

    sigterm_when_there(runs / "started")
    assert ablate(folder, "--jobs", 2) == INTERRUPTED
    assert Ledger(folder).entries() == []
    (runs / "hold").unlink()
    assert ablate(folder) == 0
    assert len(Ledger(folder).entries()) == 6


def test_a_run_that_an_orphan_is_still_at_is_waited_for_and_not_started_again(ablate, folder):
    study = read_study(folder)
    run = study.run("plain", 0)
    run.run_dir.mkdir(parents=True)
    held = threading.Event()

    def orphan():
        with run_folder_lock(run.run_dir):
            held.set()
            time.sleep(1)
            save_config(run.settings.config, run.run_dir / "config.yaml")
            (run.run_dir / "checkpoints").mkdir()
            (run.run_dir / "checkpoints" / "best.pt").touch()
            figures = {"mre_px": 7.0, "median_px": 7.0, "level_shift_rate": 0.0}
            report = {"steps": 4, "training_seconds": 2.0, "validation": figures}
            (run.run_dir / "metrics.json").write_text(json.dumps(report))

    threading.Thread(target=orphan).start()
    held.wait()
    assert ablate(folder) == 0
    assert {entry.key: entry.row["mre_px"] for entry in Ledger(folder).entries()}["plain", 0] == "7.0"
    assert not (run.run_dir / "log.txt").exists()


def test_a_finished_run_whose_checkpoint_was_deleted_is_trained_again_to_be_measured(ablate, folder):
    assert ablate(folder) == 0  # the stand-in leaves no checkpoint, as after a clean-up
    log = folder / "runs" / "plain-1" / "log.txt"
    log.unlink()
    Ledger(folder).take_out([("argmax", 1)])
    assert ablate(folder) == 0
    assert log.exists()
    assert ("argmax", 1) in {entry.key for entry in Ledger(folder).entries()}


def test_stale_rows_stop_a_study_until_told_what_to_do_with_them(ablate, folder, capsys):
    assert ablate(folder) == 0
    (folder / "study.yaml").write_text(STUDY.replace("sigma=2.5", "sigma=3.5"))
    assert ablate(folder) == 1
    assert "codec.sigma 2.5 in the row, 3.5 now" in capsys.readouterr().err
    assert ablate(folder, "--table") == 0
    assert "Of other settings" in capsys.readouterr().out
    assert ablate(folder, "--keep-stale") == 0
    assert ablate(folder, "--rerun-stale") == 0
    assert {float(entry.row["mre_px"]) for entry in Ledger(folder).entries()} == {1.5, 1.75, 2.5, 2.75, 3.5, 3.75}
    assert "Of other settings" not in (folder / "table.md").read_text()


def test_an_array_for_slurm_runs_what_is_missing_and_is_collected_afterwards(ablate, folder, capsys):
    options = ["--sbatch-option=--gres=gpu:1", "--sbatch-option=--time=00:20:00", "--jobs", 3]
    assert ablate(folder, "--slurm", *options) == 0
    script = folder / "runs" / "array.sbatch"
    assert f"sbatch {script}" in capsys.readouterr().out
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert {"--array=0-3%3", "--gres=gpu:1", "--time=00:20:00", "--signal=B:TERM@60"} <= directives
    task = subprocess.run(
        ["bash", script], env={**os.environ, "SLURM_ARRAY_TASK_ID": "2"}, capture_output=True, text=True
    )
    assert task.returncode == 0, task.stderr
    third = read_study(folder).planned[2]
    assert (third.run_dir / "metrics.json").is_file()
    assert Ledger(folder).entries() == []  # tasks do not write what they share
    assert ablate(folder, "--slurm") == 0
    assert f"{third}: was finished" in capsys.readouterr().out
    assert [entry.key for entry in Ledger(folder).entries()] == [third.key]
    assert "--array=0-2%1" in script.read_text()


def test_one_run_can_be_asked_for_by_name(ablate, folder, capsys):
    assert ablate(folder, "--run", "wide", 1) == 0
    assert (folder / "runs" / "wide-1" / "metrics.json").is_file()
    assert ablate(folder, "--run", "narrow", 1) == 1
    assert "no run of variant narrow with seed 1; variants: plain, wide, argmax" in capsys.readouterr().err


@pytest.mark.slow  # a Ray cluster on this machine takes its time to start
def test_runs_on_a_ray_cluster_stop_at_sigterm_and_are_recorded_when_started_again(ablate, folder, monkeypatch):
    pytest.importorskip("ray", reason="pip install 'vertebra_kp[cluster]'")
    monkeypatch.chdir(folder.parent)
    (folder / "study.yaml").write_text(STUDY.replace("[0, 1]", "[0]"))
    runs = folder / "runs"
    runs.mkdir()
    (runs / "hold").touch()

    sigterm_when_there(runs / "started")
    relative = Path(folder.name)  # tasks start in folders of their own
    assert ablate(relative, "--ray", "--jobs", 2) == INTERRUPTED
    assert Ledger(folder).entries() == []
    (runs / "hold").unlink()
    assert ablate(relative, "--ray", "--jobs", 2) == 0
    assert len(Ledger(folder).entries()) == 3


# --- real runs with the thin backbone -------------------------------------------------------------------


@pytest.fixture
def thin(tmp_path):
    """A program that is vertebra-kp with the thin backbone."""
    program = tmp_path / "thin.py"
    program.write_text(THIN.format(tests=str(ROOT / "tests")))
    return program


def start(program, folder):
    """The command ablate as a process, the leader of its group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), "ablate", str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for(happened, process, timeout_s=900):
    end = time.monotonic() + timeout_s
    while not happened():
        assert process.poll() is None, f"ablate ended with {process.returncode} before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def without_timing(folder):
    """Rows, films and table without what depends on the machine's other work, or on edits while the test runs."""
    # These depend on what else the machine did, and on interruptions; all others do not.
    hidden = ("seconds", "images_per_second", "peak_memory_mb", "version")
    rows = [{k: v for k, v in entry.row.items() if k not in hidden} for entry in Ledger(folder).entries()]
    films = {entry.key: entry.films for entry in Ledger(folder).entries()}
    lines = [line for line in (folder / "table.md").read_text().splitlines() if "versions of the code" not in line]
    cells = [re.split(r" \| ", line)[:-3] if line.startswith("|") else line for line in lines]
    return sorted(rows, key=lambda row: (row["variant"], row["seed"])), films, cells


@pytest.mark.slow  # some twenty processes with a thin network: two minutes of an idle core
def test_a_study_killed_three_times_has_the_table_of_an_undisturbed_one(thin, tmp_path):
    small = {"films": 16, "save_every_steps": 1}
    places = [tmp_path / "whole", tmp_path / "killed"]  # apart: neither takes over the other's runs
    for place in places:
        place.mkdir()
    whole, killed = (new_study(place, "01_study", **small) for place in places)
    assert start(thin, whole).wait(900) == 0
    moments = [
        lambda: (killed / "runs" / "plain-0" / "checkpoints" / "last.pt").is_file(),  # in the first run
        lambda: (killed / "results.csv").is_file(),  # a row was just written
        lambda: (killed / "runs" / "wide-1" / "checkpoints" / "best.pt").is_file(),  # in the last run
    ]
    for moment in moments:
        process = start(thin, killed)
        wait_for(moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(Ledger(killed).entries()) < 6
    assert start(thin, killed).wait(900) == 0
    assert without_timing(killed) == without_timing(whole)
    assert len(Ledger(killed).entries()) == 6


@pytest.mark.slow  # five processes with a thin network
def test_a_run_whose_ablate_was_killed_is_not_written_by_two(thin, tmp_path):
    folder = new_study(tmp_path, "01_study", films=96, save_every_steps=1)
    (folder / "study.yaml").write_text(STUDY.replace("[0, 1]", "[0]"))
    first = start(thin, folder)
    wait_for((folder / "runs" / "plain-0" / "checkpoints" / "last.pt").is_file, first)
    first.kill()  # the run itself lives on
    first.wait()
    assert start(thin, folder).wait(900) == 0
    assert len(commands_in(folder / "runs" / "plain-0" / "log.txt")) == 1
    assert len(Ledger(folder).entries()) == 3


# --- where configs are found ----------------------------------------------------------------------------


def test_a_study_outside_the_checkout_builds_on_a_config_by_name_from_any_folder(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY.replace("../base.yaml", "quickstart"))
    monkeypatch.chdir(tmp_path)
    (run, *_) = read_study(Path("study")).planned
    assert run.base == find_config("quickstart").resolve()
    assert run.settings.config.data.phantom.films == load_config(run.base).data.phantom.films


def test_runs_are_started_as_a_module_of_this_python():
    assert (sys.executable, "-m", "vertebra_kp") == launch.PROGRAM
