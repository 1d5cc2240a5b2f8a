"""The queue between two threads: order, bounds, and an end from either side."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from unblur.runtime.loops.queues import Channel


@pytest.fixture
def in_thread() -> Iterator[Callable[..., "Future[object]"]]:
    pool = ThreadPoolExecutor(max_workers=1)
    yield pool.submit
    pool.shutdown()


def test_items_arrive_in_order_and_all(in_thread: Callable[..., "Future[object]"]) -> None:
    channel = Channel[int](2)

    def produce() -> None:
        for item in range(1000):
            assert channel.put(item)
        channel.close()

    sent = in_thread(produce)
    assert list(channel) == list(range(1000))
    sent.result()


def test_it_holds_no_more_than_its_depth(in_thread: Callable[..., "Future[object]"]) -> None:
    channel = Channel[int](3)
    passed = threading.Semaphore(0)

    def produce() -> None:
        for item in range(5):
            channel.put(item)
            passed.release()

    in_thread(produce)
    for _ in range(3):
        assert passed.acquire(timeout=5)
    assert not passed.acquire(timeout=0.1)
    next(iter(channel))
    assert passed.acquire(timeout=5)
    channel.close()


def test_a_closed_channel_takes_nothing_and_gives_what_it_holds() -> None:
    channel = Channel[int](4)
    assert channel.put(1)
    channel.close()
    channel.close()
    assert not channel.put(2)
    assert list(channel) == [1]


def test_closing_wakes_a_waiting_producer(in_thread: Callable[..., "Future[object]"]) -> None:
    channel = Channel[int](1)
    channel.put(1)
    waiting = in_thread(channel.put, 2)
    channel.close()
    assert waiting.result(timeout=5) is False


def test_closing_wakes_a_waiting_consumer(in_thread: Callable[..., "Future[object]"]) -> None:
    channel = Channel[int](1)
    waiting = in_thread(list, channel)
    channel.close()
    assert waiting.result(timeout=5) == []
