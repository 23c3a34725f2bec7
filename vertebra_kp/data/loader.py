"""Batches: which film comes when is a pure function of (seed, epoch, step), so a run can be taken up anywhere."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vertebra_kp.config.schema import AugmentConfig
from vertebra_kp.core.anatomy import Schema, presence_target
from vertebra_kp.data.films import FilmLabels, Films
from vertebra_kp.data.shards import ShardFilms, ShardOrder
from vertebra_kp.data.transforms import augment, place


@dataclass(frozen=True)
class Batch:
    """``image`` [B, 1, H, W] 0..1; ``points_xy`` [B, K, 2] and ``states`` [B, K] in its frame;
    ``presence`` [B, L]; ``view`` [B] and ``slips`` [B, L] int64, ``UNKNOWN`` where nobody told;
    ``matrix`` [B, 3, 3] original film -> image; ``labels`` in original pixels.
    """

    image: Tensor
    points_xy: Tensor
    states: Tensor
    presence: Tensor
    view: Tensor
    slips: Tensor
    matrix: Tensor
    labels: list[FilmLabels]

    def pin_memory(self) -> "Batch":
        tensors = (
            self.image,
            self.points_xy,
            self.states,
            self.presence,
            self.view,
            self.slips,
            self.matrix,
        )
        return Batch(*(tensor.pin_memory() for tensor in tensors), self.labels)


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
            torch.from_numpy(sample.matrix),
            [film.labels()],
        )

    @property
    def shard_order(self) -> ShardOrder | None:
        """For the ``EpochSampler`` of these films: None but for shards that are read one after the other."""
        return self.films.order if isinstance(self.films, ShardFilms) else None

    def batch(self, items: list[tuple[int, int]]) -> Batch:
        """Several items at once, for the few films of a picture or a prediction."""
        return collate([self[item] for item in items])


def collate(items: list[Batch]) -> Batch:
    return Batch(
        torch.stack([item.image for item in items]),
        torch.stack([item.points_xy for item in items]),
        torch.stack([item.states for item in items]),
        torch.stack([item.presence for item in items]),
        torch.stack([item.view for item in items]),
        torch.stack([item.slips for item in items]),
        torch.stack([item.matrix for item in items]),
        [item.labels[0] for item in items],
    )


class EpochSampler(Sampler):
    """(epoch, index) in an order fixed by seed and epoch: ranks take turns, ``start`` skips what was seen.

    ``start`` counts films of this rank. Films that do not fill a last batch on every rank are left out. With a
    ``shard_order``, ranks and workers read the same shard at about the same time, each its own films.
    """

    def __init__(
        self,
        films: int,
        epoch: int,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        shard_order: ShardOrder | None = None,
    ) -> None:
        if shard_order is None:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(films, generator=generator)
        else:
            order = torch.from_numpy(shard_order.shuffled(seed, epoch))
        usable = films - films % (batch_size * world_size)
        self.indices = order[:usable][rank::world_size][start:].tolist()
        self.epoch = epoch

    def first(self, films: int) -> list[tuple[int, int]]:
        return [(self.epoch, index) for index in self.indices[:films]]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in self.indices)


def sequential(films: int) -> list[tuple[int, int]]:
    """A sampler for evaluation: every film once, in order."""
    return [(0, index) for index in range(films)]


def start_worker(worker: int) -> None:
    """Workers leave signals to the main process, which writes a checkpoint, and one core to each other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)


def make_loader(
    dataset: FilmDataset,
    sampler: Sampler | list,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        # A generator of its own: starting workers must not draw from the run's random state.
        generator=torch.Generator().manual_seed(0),
    )
