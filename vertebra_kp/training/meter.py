"""What is printed and logged while training: losses, speed, waits for data, time left.

Losses stay on the device until they are read: reading waits for the GPU.
"""

import math
import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from tqdm import tqdm

from vertebra_kp.core.errors import UserError
from vertebra_kp.data.loader import Batch
from vertebra_kp.training.schedule import Plan


class NonFiniteLossError(UserError):
    """The loss or its gradient is nan or infinite; the message names the step and the films."""


class Meter(AbstractContextManager):
    """Collects the steps since the last ``read``; a context manager that closes its progress bar."""

    def __init__(self, plan: Plan, step: int, *, visible: bool) -> None:
        self._bar = tqdm(
            total=plan.total_steps, initial=step, unit="step", disable=not visible, dynamic_ncols=True
        )
        self._steps: list[tuple[int, dict[str, Tensor], list[str]]] = []
        self._films, self._waited = 0, 0.0
        self._since = self._lap = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def enter_phase(self, name: str) -> None:
        self._bar.set_description(name)

    def waited(self, seconds: float) -> None:
        """Time that a step waited for its data."""
        self._waited += seconds

    def add(self, step: int, values: dict[str, Tensor], batches: list[Batch]) -> None:
        ids = [labels.id for batch in batches for labels in batch.labels]
        self._steps.append((step, {name: value.detach() for name, value in values.items()}, ids))
        self._films += len(ids)
        self._bar.update()

    def read(self, world_size: int = 1) -> dict[str, float]:
        """Means since the last call, with images/s and share of waiting; NonFiniteLossError for a bad step."""
        if not self._steps:
            return {}
        names = list(self._steps[0][1])
        table = torch.stack([torch.stack([v[n].float() for n in names]) for _, v, _ in self._steps]).cpu()
        for (step, _, ids), row in zip(self._steps, table, strict=True):
            # The gradient too: a bad one spoils the weights before the next loss shows it.
            for name, what in (("total", "loss"), ("gradient_norm", "gradient")):
                if not math.isfinite(row[names.index(name)]):
                    raise NonFiniteLossError(
                        f"the {what} is {float(row[names.index(name)])} at step {step}, films {', '.join(ids)}; "
                        "look at these films and labels, lower train.phases.*.lr, or set train.precision to off"
                    )
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        means = {f"train/{name}": float(value) for name, value in zip(names, table.mean(0), strict=True)}
        means["train/images_per_second"] = self._films * world_size / elapsed
        means["train/waiting_for_data"] = self._waited / elapsed
        self._bar.set_postfix_str(
            f"loss {means['train/total']:.3f}, {means['train/images_per_second']:.1f} images/s"
        )
        self._steps, self._films, self._waited = [], 0, 0.0
        self._since = time.perf_counter()
        return means

    def lap(self) -> float:
        """Seconds since the last lap. The time of an evaluation is no training speed: it is a lap of its own."""
        now = time.perf_counter()
        seconds, self._lap = now - self._lap, now
        if not self._steps:
            self._since = now
        return seconds
