"""Runs of a study on a Ray cluster. Its machines must see the study's folder and the code under the same paths."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import FAILED, INTERRUPTED
from vertebra_kp.experiments import launch
from vertebra_kp.experiments.launch import POLL_S, Stop, run_to_end
from vertebra_kp.experiments.study import Planned

log = logging.getLogger(__name__)


def run_on_ray(
    runs: list[Planned], stop: Stop, *, address: str | None, jobs: int
) -> Iterator[tuple[Planned, int]]:
    """Every run as a task; yields each run with its exit code as it ends.

    A run takes a GPU where the cluster has any, else the share of a machine's cores that lets ``jobs`` run on it
    at a time. ``address`` None starts a cluster on this machine. Raises UserError without Ray.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise UserError("a Ray cluster needs Ray: pip install 'vertebra_kp[cluster]'") from error
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there, which ends this process at once
    try:
        cpus, gpus = 1, 1  # of the cluster, for a task
        if not ray.cluster_resources().get("GPU"):
            smallest = min(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
            cpus, gpus = max(1, int(smallest) // jobs), 0
        task = ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus)(_task)
        open_tasks = {task.remote(run, launch.PROGRAM, Path.cwd()): run for run in runs}
        cancelled = False
        while open_tasks:
            done, _ = ray.wait(list(open_tasks), timeout=POLL_S)
            for reference in done:
                try:
                    code = ray.get(reference)
                except RayError as error:  # a worker or its machine is gone; the other runs are not
                    if not cancelled:
                        log.error("%s: Ray lost it: %s", open_tasks[reference], error)
                    code = INTERRUPTED if cancelled else FAILED
                yield open_tasks.pop(reference), code
            if stop.requested and not cancelled:
                for reference in open_tasks:
                    ray.cancel(reference)  # a KeyboardInterrupt in the task, which hands it to its run
                cancelled = True
    finally:
        ray.shutdown()


def _task(run: Planned, program: Sequence[str], working_directory: Path) -> int:
    os.chdir(working_directory)  # paths of a study and of its configs may be relative to it
    return run_to_end(run, Stop(), program)
