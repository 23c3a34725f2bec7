"""Work on many images, in batches and a few batches at a time: reading, network and drawing overlap."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

STREAMS = 2  # a third one computes no faster, and takes memory


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one perhaps shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def in_streams(work: Callable[[list[T]], Iterable[R]], items: Iterable[T], *, batch_size: int) -> Iterator[R]:
    """The results of ``work`` on batches of ``items``, in their order; ``work`` runs in several threads.

    Items are drawn and results held only as far as the threads need them: memory does not grow with their number.
    Each thread keeps all of torch's threads, so that a result does not depend on how many streams there are. What
    ``work`` raises is raised here, in order.
    """
    batches = in_batches(items, batch_size)
    first = list(islice(batches, 2))
    if len(first) < 2:  # nothing to overlap with
        for batch in first:
            yield from work(batch)
        return
    waiting: deque[Future[Iterable[R]]] = deque()
    with ThreadPoolExecutor(STREAMS) as pool:
        try:
            for batch in chain(first, batches):
                waiting.append(pool.submit(work, batch))
                if len(waiting) > STREAMS:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
