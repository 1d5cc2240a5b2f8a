"""Times of a live stream that only ever go on, whatever the camera's clock does."""

import time
from collections.abc import Callable
from fractions import Fraction

TIME_BASE = Fraction(1, 90_000)  # MPEG's clock: exact for 24, 25, 30, 30000/1001, ... frames per second
_JUMP_TICKS = 90_000


class StreamClock:
    """Starts at 0 and moves by what the stream says has passed between two frames.

    Where the stream says nothing, goes back (it was opened again, the camera was set to another hour) or leaps
    ahead by more than a second, it moves by what has passed here.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """now: seconds on a clock of this machine; for tests."""
        self._now = now
        self._ticks = -1
        self._given: int | None = None
        self._arrived = 0

    def at(self, stream_s: Fraction | None) -> Fraction:
        """Seconds since the first call, in whole TIME_BASE. stream_s: the frame's own time; None is unknown."""
        arrived = round(self._now() / TIME_BASE)
        given = None if stream_s is None else round(stream_s / TIME_BASE)
        self._ticks += 1 if self._ticks < 0 else self._passed(arrived, given)
        self._arrived, self._given = arrived, given
        return self._ticks * TIME_BASE

    def _passed(self, arrived: int, given: int | None) -> int:
        """Ticks since the frame before, at least 1."""
        waited = max(1, arrived - self._arrived)
        if given is None or self._given is None:
            return waited
        step = given - self._given
        return step if 0 < step < waited + _JUMP_TICKS else waited
