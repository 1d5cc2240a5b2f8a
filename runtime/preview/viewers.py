"""The pages that watch, and what waits for each of them. Used in the thread of the event loop only."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

MOST_VIEWERS = 8
_IN_FLIGHT = 2  # one picture is drawn while the next is under way

Kind = Literal["hello", "still", "sample", "state", "picture"]
"""In the order in which they are sent."""

Message = bytes | str


class Viewer:
    """A page that watches. At most one message of each kind waits for it, the newest.

    A picture is sent only when the page has drawn an earlier one: buffers of the network cannot fill up with what
    is old by the time it arrives, and a page in a hidden tab, which draws nothing, costs nothing.
    """

    def __init__(self) -> None:
        self.credit = _IN_FLIGHT
        self._waiting: dict[Kind, Message] = {}
        self._changed = asyncio.Event()

    def put(self, kind: Kind, message: Message) -> None:
        """Leave a message to be sent instead of an older one of its kind."""
        self._waiting[kind] = message
        self._changed.set()

    def drawn(self) -> None:
        """The page has drawn a picture and can take another."""
        self.credit = min(self.credit + 1, _IN_FLIGHT)
        self._changed.set()

    async def next(self) -> Message:
        """What to send next, waiting for it."""
        while (kind := self._sendable()) is None:
            self._changed.clear()
            await self._changed.wait()
        if kind == "picture":
            self.credit -= 1
        return self._waiting.pop(kind)

    def _sendable(self) -> Kind | None:
        waiting = (kind for kind in get_args(Kind) if kind in self._waiting)
        return next((kind for kind in waiting if kind != "picture" or self.credit), None)


class Viewers:
    """All that watch, at most `most`."""

    def __init__(self, most: int = MOST_VIEWERS) -> None:
        self._most = most
        self._viewers: set[Viewer] = set()

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def full(self) -> bool:
        return len(self._viewers) >= self._most

    @property
    def want_picture(self) -> bool:
        """Whether one of them could be sent a picture now. May be asked from any thread."""
        return any(viewer.credit for viewer in tuple(self._viewers))

    @contextmanager
    def joined(self) -> Iterator[Viewer]:
        """A new one, which watches inside the block."""
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.remove(viewer)

    def put(self, kind: Kind, message: Message) -> None:
        """Leave a message for every one of them."""
        for viewer in self._viewers:
            viewer.put(kind, message)
