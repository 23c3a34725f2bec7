"""Batches in several threads: in order, no more held than needed, errors raised where they belong."""

import threading
import time

import pytest

from vertebra_kp.inference.streams import STREAMS, in_batches, in_streams


def test_batches_hold_every_item_once_in_order():
    assert list(in_batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_batches([], 3)) == []


@pytest.mark.parametrize("number", [0, 1, 2, 3, 11])
def test_results_come_in_the_order_of_the_items_whichever_is_ready_first(number):
    def work(batch):
        time.sleep(0.01 * (batch[0] % 3))
        return [item * item for item in batch]

    assert list(in_streams(work, range(number), batch_size=2)) == [i * i for i in range(number)]


def test_several_batches_are_worked_on_at_a_time():
    together = threading.Barrier(STREAMS, timeout=20)  # breaks, and fails, where they come one after the other

    def work(batch):
        together.wait()
        return batch

    assert len(list(in_streams(work, range(STREAMS), batch_size=1))) == STREAMS


def test_items_are_drawn_only_as_far_as_the_streams_need_them():
    drawn = []

    def items():
        for i in range(100):
            drawn.append(i)
            yield i

    results = in_streams(lambda batch: batch, items(), batch_size=2)
    next(results)
    assert len(drawn) <= 2 * (STREAMS + 2)
    results.close()


def test_an_error_comes_after_the_results_before_it():
    def work(batch):
        if batch == [3]:
            raise ValueError("three")
        return batch

    results = in_streams(work, range(6), batch_size=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
