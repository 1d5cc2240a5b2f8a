"""A bounded queue between two threads that either of them may close."""

from collections import deque
from collections.abc import Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """`put` on one side, iteration on the other.

    Either side ends it with `close`: the consumer still gets what is in it, the producer learns that nobody will
    take more. (`queue.Queue` has `shutdown` from Python 3.13 on only.)
    """

    def __init__(self, depth: int) -> None:
        """depth: items that it holds at most; `put` waits while it is full."""
        self._items: deque[T] = deque()
        self._depth = depth
        self._closed = False
        self._changed = Condition()

    def put(self, item: T) -> bool:
        """Append an item, waiting for room. False: the channel is closed and the item was not taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def close(self) -> None:
        """No more items from now on. May be called from either side, and more than once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items in order, waiting for each, until the channel is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._items)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


ItemT = TypeVar("ItemT")


class LatestValue(Generic[ItemT]):
    """`put` never waits: an item that was not taken yet gives way to a newer one."""

    def __init__(self) -> None:
        self._item: ItemT | None = None
        self._closed = False
        self._changed = Condition()

    def put(self, item: ItemT) -> bool:
        """Leave an item. True if it pushed out one that nobody will see now. After `close` it is ignored."""
        with self._changed:
            if self._closed:
                return False
            pushed_out = self._item is not None
            self._item = item
            self._changed.notify()
            return pushed_out

    def take(self, timeout_s: float | None = None) -> ItemT | None:
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

    @property
    def empty(self) -> bool:
        """There is nothing to take right now."""
        return self._item is None
