"""A SLURM array of the missing runs of a study, one task a run.

A task gets SIGTERM a minute before its time is up, writes a checkpoint and ends; a later array goes on from there.
"""

import os
import shlex
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_text
from vertebra_kp.experiments import launch
from vertebra_kp.experiments.study import Planned, Study

SCRIPT = "array.sbatch"


def write_array(study: Study, runs: list[Planned], *, jobs: int, options: list[str]) -> Path:
    """Write ``runs/array.sbatch`` and return its path.

    ``jobs`` tasks run at a time; ``options`` are further options of sbatch (``--gres=gpu:1``). The folders must be
    the same on all machines of the cluster: tasks find them by the path that they have here. Raises UserError for
    a path or an option with a line break or another control character: it would be a line of the script.
    """
    folder = study.run_folders.resolve()
    for text in (str(folder), os.getcwd(), *launch.PROGRAM, *options):
        if not text.isprintable():
            raise UserError(f"{text!r} has a control character, which no SLURM script can hold; rename it")
    output = shlex.quote(str(folder).replace("%", "%%") + "/slurm-%A_%a.txt")
    command = shlex.join([*launch.PROGRAM, "ablate", str(study.folder.resolve()), "--run"])
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={shlex.quote(study.folder.resolve().name)}",
        f"#SBATCH --array=0-{len(runs) - 1}%{jobs}",
        f"#SBATCH --output={output}",
        "#SBATCH --signal=B:TERM@60",  # B: to this script, which is the run itself after exec
        *(f"#SBATCH {option}" for option in options),
        f"cd {shlex.quote(os.getcwd())}",
        "RUNS=(",
        *(f"  {shlex.quote(f'{run.variant} {run.seed}')}" for run in runs),
        ")",
        f"exec {command} ${{RUNS[$SLURM_ARRAY_TASK_ID]}}",
    ]
    path = study.run_folders / SCRIPT
    write_text("\n".join(lines) + "\n", path)
    return path
