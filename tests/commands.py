"""Commands as a user types them, in this process or in one of their own, and settings that make a config tiny."""

import io
import logging
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from vertebra_kp.cli.main import main
from vertebra_kp.config.io import find_config, load_config

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = [
    "data.input_size=[64,64]",
    "data.workers=0",
    "train.batch_size=2",
    "train.batch_norm_calibration=1",
    "train.evaluate_films=2",
]
TINY_PHANTOM = ["data.phantom.films=4", "data.phantom.validation_films=2"]


def tiny(config):
    """Overrides that make one epoch of every phase of a shipped config, at a tiny size, from random weights."""
    phases = load_config(find_config(config)).train.phases
    return [*TINY, "train.start_from=null", *(f"train.phases.{i}.epochs=1" for i in range(len(phases)))]


def run(command, *arguments):
    """In this process, which saves the imports; returns what ``subprocess.run`` would."""
    words, out, err = [command, *map(str, arguments)], io.StringIO(), io.StringIO()
    log = logging.StreamHandler(err)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with redirect_stdout(out), redirect_stderr(err):
        logging.getLogger().addHandler(log)
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        finally:
            logging.getLogger().removeHandler(log)
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def run_apart(command, *arguments, launcher=(), **options):
    """In a process of its own, perhaps started by a ``launcher`` such as torchrun."""
    words = [sys.executable, *launcher, "-m", "vertebra_kp", command, *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    options = {"capture_output": True, "text": True, "env": variables, "check": False} | options
    return subprocess.run(words, **options)
