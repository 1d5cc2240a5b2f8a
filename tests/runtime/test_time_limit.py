"""Calls that hang are left behind."""

import threading
import time
from concurrent.futures import TimeoutError

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.media.stream_sinks import TimeLimit


def test_calls_are_made_in_one_other_thread_and_their_errors_come_back() -> None:
    threads: list[int] = []
    within = TimeLimit(5)
    for _ in range(3):
        within(lambda: threads.append(threading.get_ident()))
    with pytest.raises(BadInput, match="no"):
        within(fail)
    within.close()
    assert len(threads) == 3
    assert len({*threads, threading.get_ident()}) == 2


def fail() -> None:
    raise BadInput("no")


def test_a_call_that_hangs_is_left_behind() -> None:
    within, wake = TimeLimit(0.05), threading.Event()
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        within(wake.wait)
    assert time.monotonic() - began_s < 1
    wake.set()
