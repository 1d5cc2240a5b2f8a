"""The slot holds the newest item and never makes the producer wait."""

import threading

from unblur.runtime.loops.queues import LatestValue


def test_a_newer_item_pushes_out_the_older() -> None:
    slot = LatestValue[int]()
    assert [slot.put(number) for number in (1, 2, 3)] == [False, True, True]
    assert slot.take() == 3
    assert slot.take(timeout_s=0) is None
    assert not slot.put(4)


def test_take_waits_for_an_item() -> None:
    slot = LatestValue[int]()
    threading.Timer(0.02, slot.put, [5]).start()
    assert slot.take(timeout_s=10) == 5


def test_what_was_left_is_still_there_after_closing() -> None:
    slot = LatestValue[int]()
    slot.put(1)
    slot.close()
    slot.close()
    assert not slot.put(2)
    assert slot.closed
    assert slot.take() == 1
    assert slot.take() is None


def test_closing_wakes_who_waits() -> None:
    slot = LatestValue[int]()
    threading.Timer(0.02, slot.close).start()
    assert slot.take() is None
