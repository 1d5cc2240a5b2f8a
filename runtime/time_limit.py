"""Calls that may never return, under a time limit: FFmpeg waits for a server without end when it writes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class TimeLimit:
    """Makes calls one after the other, in a thread of its own that is left behind if one of them hangs."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], object]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="unblur-push", daemon=True).start()

    def __call__(self, call: Callable[[], object]) -> None:
        """Wait for `call`, and raise what it raises; concurrent.futures.TimeoutError after the limit."""
        done: Future[Any] = Future()
        self._calls.put((done, call))
        done.result(self._limit_s)

    def close(self) -> None:
        """End the thread, once it gets to it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (job := self._calls.get()) is not None:
            done, call = job
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 - goes to who waits for it
                done.set_exception(error)
            del job, done, call  # a frame shall not stay until the next one comes
