"""A file that begins again at its end: `--loop`."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from types import TracebackType

from unblur.runtime.media import Source, TimedFrame


class LoopSource(AbstractContextManager["LoopSource"]):
    """Repeats a picture, a folder or a video for ever; times go on from one round to the next."""

    def __init__(self, open_source: Callable[[], Source]) -> None:
        """Opens it for the first round. Raises what `open_source` raises."""
        self._open_source = open_source
        self._source = open_source()
        self.info = dataclasses.replace(self._source.info, frames=None)
        self.lost_frames = 0

    def __iter__(self) -> Iterator[TimedFrame]:
        """Raises BadInput if the file is no longer there."""
        start_s = Fraction(0)
        while True:
            end_s = start_s
            with self._source:
                for frame in self._source:
                    end_s = start_s + frame.time_s + (frame.duration_s or 1 / self.info.rate)
                    yield dataclasses.replace(frame, time_s=start_s + frame.time_s)
                self.lost_frames += self._source.lost_frames
            start_s = end_s
            self._source = self._open_source()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)
