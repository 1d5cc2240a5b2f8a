"""A slot between two threads that holds the newest item only: how latency is kept from growing."""

from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """`put` never waits: an item that was not taken yet gives way to a newer one."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._closed = False
        self._changed = Condition()

    def put(self, item: T) -> bool:
        """Leave an item. True if it pushed out one that nobody will see now. After `close` it is ignored."""
        with self._changed:
            if self._closed:
                return False
            pushed_out = self._item is not None
            self._item = item
            self._changed.notify()
            return pushed_out

    def take(self, timeout_s: float | None = None) -> T | None:
        """The newest item, waiting for one; None after `timeout_s`, or if the slot is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._item is not None, timeout_s)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """No more items; what is in the slot can still be taken. May be called more than once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed
