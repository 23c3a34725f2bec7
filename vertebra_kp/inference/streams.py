"""Work on many images, in batches and a few batches at a time: reading, network and drawing overlap."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

import torch

T, R = TypeVar("T"), TypeVar("R")

MOST_STREAMS = 4  # more would need memory for their batches and give little


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one perhaps shorter."""
    items = iter(items)
    return iter(lambda: list(islice(items, size)), [])


def in_streams(work: Callable[[list[T]], Iterable[R]], items: Iterable[T], *, batch_size: int) -> Iterator[R]:
    """The results of ``work`` on batches of ``items``, in their order; ``work`` runs in several threads.

    Items are drawn and results held only as far as the threads need them: memory does not grow with their number.
    Torch's threads are shared out, so that each stream computes on cores of its own: two networks side by side
    finish sooner than one after the other on all cores. What ``work`` raises is raised here, in order.
    """
    batches = in_batches(items, batch_size)
    first = list(islice(batches, 2))
    if len(first) < 2:  # nothing to overlap with
        for batch in first:
            yield from work(batch)
        return
    streams = min(MOST_STREAMS, max(2, torch.get_num_threads()))
    waiting: deque[Future[Iterable[R]]] = deque()
    with _threads_shared(streams), ThreadPoolExecutor(streams) as pool:
        try:
            for batch in chain(first, batches):
                waiting.append(pool.submit(work, batch))
                if len(waiting) > streams:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _threads_shared(streams: int) -> Iterator[None]:
    """Threads that start inside have torch's threads divided by ``streams``."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // streams))
    try:
        yield
    finally:
        torch.set_num_threads(before)
