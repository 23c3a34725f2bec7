"""Which process this is among those that torchrun started; one process is a group of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vertebra_kp.models.device import choose_device

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.world_size > 1:
            tensor = tensor.to(self.device, copy=True)
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any process says so; every process gets the same answer."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """The main process's value, everywhere."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box)
        return box[0]


@contextmanager
def process_group(device: str | None = None) -> Iterator[Group]:
    """The group of this process, from torchrun's environment; ``device`` None takes a GPU where there is one."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(device)
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    if world_size > 1:
        # The others wait while the main process evaluates: the default of 10 minutes can be too short.
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=2))
    try:
        yield Group(rank, world_size, torch.device(device))
    finally:
        if world_size > 1:
            dist.destroy_process_group()
