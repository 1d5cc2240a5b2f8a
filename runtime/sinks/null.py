"""`null:` takes frames and keeps nothing: to measure, or with a web page alone."""

from contextlib import AbstractContextManager
from types import TracebackType

from unblur.runtime.media import TimedFrame


class NullSink(AbstractContextManager["NullSink"]):
    """A sink without output."""

    def write(self, frame: TimedFrame) -> None:
        """Does nothing."""

    def finish(self, *, complete: bool) -> None:
        """Does nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""
