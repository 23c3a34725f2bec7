"""Batches: which film comes when is a pure function of (seed, epoch, step), so a run can be taken up anywhere."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vertebra_kp.config.schema import AugmentConfig
from vertebra_kp.core.anatomy import Schema, presence_target
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.films import FilmLabels, Films
from vertebra_kp.data.shards import ShardFilms, ShardOrder
from vertebra_kp.data.transforms import augment, place


@dataclass(frozen=True)
class Batch:
    """``image`` [B, 1, H, W] 0..1; ``points_xy`` [B, K, 2] and ``states`` [B, K] in its frame;
    ``presence`` [B, L]; ``view`` [B], ``slips`` [B, L] and ``image_class`` [B] int64, ``UNKNOWN`` if unlabelled;
    ``matrix`` [B, 3, 3] original film -> image; ``labels`` in original pixels.
    """

    image: Tensor
    points_xy: Tensor
    states: Tensor
    presence: Tensor
    view: Tensor
    slips: Tensor
    image_class: Tensor
    matrix: Tensor
    labels: list[FilmLabels]

    def to(self, device: torch.device, *, memory_format: torch.memory_format = torch.preserve_format) -> "Batch":
        """On a device, but for ``matrix`` and ``labels``: the way back to the film is taken on the CPU.

        ``memory_format`` is that of ``image``.
        """
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _TARGETS}
        image = self.image.to(device, non_blocking=True, memory_format=memory_format)
        return replace(self, image=image, **moved)

    def pin_memory(self) -> "Batch":
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _TENSORS})


_TARGETS = ("points_xy", "states", "presence", "view", "slips", "image_class")
_TENSORS = ("image", *_TARGETS, "matrix")


@dataclass(frozen=True)
class FilmDataset(Dataset):
    """Item (epoch, index) is film ``index``, changed by ``augmentation`` or, without one, letterboxed."""

    films: Films
    schema: Schema
    input_size: tuple[int, int]
    augmentation: AugmentConfig | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        epoch, index = item
        film = self.films.at(epoch, index)
        if self.augmentation is None:
            sample = place(film, self.input_size)
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            sample = augment(film, self.input_size, self.augmentation, rng)
        return Batch(
            torch.from_numpy(sample.image)[None],
            torch.from_numpy(self.schema.gather(sample.points_xy)),
            torch.from_numpy(self.schema.gather(sample.states)),
            torch.from_numpy(presence_target(sample.states)),
            torch.tensor(film.view),
            torch.from_numpy(sample.slips.astype(np.int64)),
            torch.tensor(film.image_class),
            torch.from_numpy(sample.matrix),
            [film.labels()],
        )

    @property
    def shard_order(self) -> ShardOrder | None:
        """For ``shuffled`` of these films: None but for shards that are read one after the other."""
        return self.films.order if isinstance(self.films, ShardFilms) else None

    def batch(self, items: list[tuple[int, int]]) -> Batch:
        """Several items at once, for the few films of a picture or a prediction."""
        films = [self[item] for item in items]
        stacked = {name: torch.stack([getattr(film, name) for film in films]) for name in _TENSORS}
        return Batch(**stacked, labels=[film.labels[0] for film in films])


def shuffled(
    films: int,
    epoch: int,
    *,
    seed: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    shard_order: ShardOrder | None = None,
) -> list[tuple[int, int]]:
    """(epoch, index) in an order fixed by seed and epoch: ranks take turns, ``start`` skips what was seen.

    ``start`` counts films of this rank. Films that do not fill a last batch on every rank are left out. With a
    ``shard_order``, ranks and workers read the same shard at about the same time, each its own films.
    """
    if shard_order is None:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(films, generator=generator)
    else:
        order = torch.from_numpy(shard_order.shuffled(seed, epoch))
    usable = films - films % (batch_size * world_size)
    return [(epoch, index) for index in order[:usable][rank::world_size][start:].tolist()]


def sequential(films: int) -> list[tuple[int, int]]:
    """For evaluation: every film once, in order."""
    return [(0, index) for index in range(films)]


# Terminals and job schedulers send them to all processes; the main one still takes a step and writes a checkpoint.
_LEFT_TO_THE_MAIN_PROCESS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class _Reported(Dataset):
    """Batches of a dataset, or the error of one: raised in a worker, its text would be a traceback."""

    dataset: FilmDataset

    def __getitems__(self, items: list[tuple[int, int]]) -> Batch | UserError:
        try:
            return self.dataset.batch(items)
        except UserError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes that start meanwhile never get a SIGINT or SIGTERM; this one gets them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_MAIN_PROCESS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    """A worker ignores signals, but ends when the main process has ended."""
    for number in _LEFT_TO_THE_MAIN_PROCESS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(0)  # one core to each worker


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # sys.exit would end this thread alone


def _context() -> BaseContext:
    """How workers start: never as a copy of this process, whose threads may hold a lock that nobody frees then."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, by the process that workers are copies of
    return context


@contextmanager
def open_batches(
    dataset: FilmDataset,
    items: Iterable[tuple[int, int]],
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
) -> Iterator[Iterator[Batch]]:
    """Batches of the items, in their order; ``workers`` processes read ahead, and end with the block.

    A program that asks for workers must be importable: what it does stands under ``if __name__ == "__main__"``.
    The batches raise FilmError for a film that cannot be read, whoever read it.
    """
    loader = DataLoader(
        _Reported(dataset),
        batch_size=batch_size,
        sampler=items,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        multiprocessing_context=_context() if workers else None,
        # A generator of its own: starting workers must not draw from the run's random state.
        generator=torch.Generator().manual_seed(0),
    )
    with _signals_held_back():
        batches = iter(loader)
    try:
        yield map(_batch_or_raise, batches)
    finally:
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()  # now: an exception would keep them until the interpreter ends
            for process in batches._workers:
                process.kill()  # one that did not end in time: it ignores SIGTERM


def _batch_or_raise(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch
