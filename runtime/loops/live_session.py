"""Everything a live loop needs, opened from what a user typed: what `unblur run` and `unblur preview` share.

with open_session(LiveRequest("lprn-s", "rtsp://camera/stream", sinks=["sharp.mkv"])) as session:
    summary = session.run()
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from unblur.runtime.blur import BlurGate
from unblur.runtime.images import MAX_PIXELS
from unblur.runtime.loops.capture import Feed, Reconnect
from unblur.runtime.loops.ladder import UNKNOWN_SIZE_HW, Ladder, open_ladder
from unblur.runtime.loops.live_loop import LiveControls, LiveResult, LiveSummary, Restorer, run_live
from unblur.runtime.loops.stats import LiveStats
from unblur.runtime.media.interfaces import MediaInfo, Sink, Source
from unblur.runtime.media.open_media import DEFAULT_CRF, open_sinks, open_source
from unblur.runtime.runner import RunnerOptions


@dataclass(frozen=True)
class LiveRequest:
    """What to run live. sinks: see `open_sinks`. deadline_ms: None is the source's frame time, inf is none.

    options: with `steps` that number alone is run, without a ladder. gate: spares sharp frames.
    """

    model: str | Path
    source: str
    sinks: tuple[str, ...]
    options: RunnerOptions = RunnerOptions()
    deadline_ms: float | None = None
    gate: BlurGate | None = None
    reconnect: Reconnect = field(default_factory=Reconnect)
    crf: int = DEFAULT_CRF
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class LiveSession:
    """An open loop that has not started yet."""

    feed: Feed
    ladder: Ladder
    sink: Sink
    controls: LiveControls
    stats: LiveStats = field(default_factory=LiveStats)

    def run(
        self,
        stop: threading.Event | None = None,
        on_result: Callable[[LiveResult], None] = lambda result: None,
        restorer: Restorer | None = None,
    ) -> LiveSummary:
        """See `run_live`. restorer: what restores instead of the ladder."""
        return run_live(
            self.feed,
            restorer or self.ladder,
            self.sink,
            self.stats,
            controls=self.controls,
            stop=stop,
            on_result=on_result,
        )


@contextmanager
def open_session(request: LiveRequest) -> Iterator[LiveSession]:
    """Open the source, then the ladder for its size, then the sinks for its size; close them in turn.

    Raises what each of them raises: nothing runs until all are there.
    """
    stats = LiveStats()

    def connect() -> Source:
        return open_source(request.source, max_pixels=request.max_pixels)

    with Feed(connect, stats, request.reconnect) as feed:
        info = feed.info
        with (
            open_rungs(request, info) as ladder,
            open_sinks(request.sinks, info, crf=request.crf) as sink,
        ):
            controls = LiveControls(deadline_ms=_deadline_ms(request, info), gate=request.gate)
            yield LiveSession(feed, ladder, sink, controls, stats)


def open_rungs(request: LiveRequest, info: MediaInfo) -> Ladder:
    """The ladder of a request, timed on frames of the source's size."""
    return open_ladder(request.model, info.size_hw or UNKNOWN_SIZE_HW, request.options)


def _deadline_ms(request: LiveRequest, info: MediaInfo) -> float | None:
    """None where there is nothing to choose: the rung is then always the highest."""
    if request.deadline_ms is None:
        return float(1000 / info.rate)
    return None if request.deadline_ms == float("inf") else request.deadline_ms
