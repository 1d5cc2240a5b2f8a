"""Several sinks as one: record a camera and show it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from unblur.runtime.media import Sink, TimedFrame


class TeeSink(AbstractContextManager["TeeSink"]):
    """Writes every frame to all of `sinks`, in their order; the first that fails ends it."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._stack = ExitStack()

    def __enter__(self) -> "TeeSink":
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.enter_context(sink)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: TimedFrame) -> None:
        for sink in self._sinks:
            sink.write(frame)

    def finish(self, *, complete: bool) -> None:
        """Finish all, also where one of them cannot; then raise its error."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.finish, complete=complete)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
