"""The live loop: the newest frame through the network to the sinks, as fast as it goes and never late.

    capture thread -> newest frame -> this thread restores it -> newest result -> sink thread

Nothing queues up. A frame waits at most until the network is free, and by then it has been replaced by a newer one
if there is one: what is shown is at most two frame times and one inference old, however slow the model is.
Files go through `stream.run_stream`, which drops nothing.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from unblur.runtime.blur import BlurGate
from unblur.runtime.frames import Frame, FramePool
from unblur.runtime.loops.capture import Captured, Feed
from unblur.runtime.loops.ladder import Restored
from unblur.runtime.loops.queues import Newest
from unblur.runtime.loops.stats import LiveStats
from unblur.runtime.media.interfaces import Sink, TimedFrame

_POLL_S = 0.5  # how soon a stop is noticed while no frame comes


@dataclass
class LiveControls:
    """What may be changed while the loop runs, from any thread; read once per frame.

    deadline_ms: of one frame in the network; None always runs all steps. most_steps: None is no limit.
    gate: spares frames that are sharp already; None restores all.
    """

    deadline_ms: float | None = None
    most_steps: int | None = None
    gate: BlurGate | None = None


@dataclass(frozen=True)
class LiveResult:
    """A frame before and after. before, after: uint8 RGB, same shape; not to be written to.
    captured_s: when the frame was there, on the clock of `time.monotonic`.
    """

    before: TimedFrame
    after: TimedFrame
    restored: Restored
    captured_s: float


class Restorer(Protocol):
    """A ladder, or what chooses between several."""

    def restore(
        self, frame_rgb: Frame, out: Frame, *, deadline_ms: float | None = None, most_steps: int | None = None
    ) -> Restored:
        """See `Ladder.restore`."""
        ...


@dataclass(frozen=True)
class LiveSummary:
    """What one run of the loop did; the counters are those of LiveStats.

    frames: written to the sink. dropped: given up for a newer one, before or after they were restored.
    latency_ms: from captured to written: p50, p90, p99, mean, max. stages_ms: the same for each part of it.
    steps: recursion steps -> frames; 0 are those passed on as they were.
    """

    frames: int
    dropped: int
    lost: int
    seconds: float
    fps: float
    latency_ms: dict[str, float]
    stages_ms: dict[str, dict[str, float]]
    steps: dict[int, int]
    counters: dict[str, int]


def run_live(
    feed: Feed,
    ladder: Restorer,
    sink: Sink,
    stats: LiveStats,
    *,
    controls: LiveControls | None = None,
    stop: threading.Event | None = None,
    on_result: Callable[[LiveResult], None] = lambda result: None,
) -> LiveSummary:
    """Restore what the feed gives until `stop` is set or the feed ends, then finish the sink.

    feed, sink: entered by the caller. on_result: called with every frame, in the caller's thread; must not wait.
    Raises what ended the feed or what the network raised, after the sink was finished all the same, or what the
    sink raised, which then decides by itself what it keeps.
    """
    controls, stop = controls or LiveControls(), stop or threading.Event()
    pool = FramePool()
    started_s = time.monotonic()
    writer = _Writer(sink, stats)
    try:
        with writer:
            for captured in _frames(feed, stop):
                result = _restore(captured, ladder, controls, pool, stats)
                writer.put(result)
                on_result(result)
    finally:  # a camera that is gone for good shall not take its recording along
        if stats.written and not writer.failed:
            sink.finish(complete=True)
    return _summary(stats, time.monotonic() - started_s)


def _frames(feed: Feed, stop: threading.Event) -> Iterator[Captured]:
    while not stop.is_set():
        captured = feed.take(_POLL_S)
        if captured is not None:
            yield captured
        elif feed.ended:
            return


def _restore(
    captured: Captured, ladder: Restorer, controls: LiveControls, pool: FramePool, stats: LiveStats
) -> LiveResult:
    began_s = time.monotonic()
    stats.wait.add((began_s - captured.at_s) * 1e3)
    before = captured.frame
    most_steps = controls.most_steps
    worth = None if controls.gate is None else controls.gate.most_steps(before.rgb)
    if worth == 0:
        restored = Restored(before.rgb, 0, 0.0, late=False)
        stats.passed += 1
    else:
        if worth is not None:
            most_steps = worth
        out = pool.take(before.rgb.shape)
        restored = ladder.restore(before.rgb, out, deadline_ms=controls.deadline_ms, most_steps=most_steps)
    stats.late += restored.late
    stats.steps[restored.steps] += 1
    stats.restore.add((time.monotonic() - began_s) * 1e3)
    after = dataclasses.replace(before, rgb=restored.rgb)
    return LiveResult(before, after, restored, captured.at_s)


class _Writer:
    """Writes the newest result in a thread of its own, so that a slow sink costs frames and not latency."""

    def __init__(self, sink: Sink, stats: LiveStats) -> None:
        self._sink = sink
        self._stats = stats
        self._newest = Newest[LiveResult]()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unblur-sink")

    @property
    def failed(self) -> bool:
        """The sink raised an error."""
        return self._writing.done() and self._writing.exception() is not None

    def put(self, result: LiveResult) -> None:
        """Leave a result to be written. Raises the error of the sink if it has failed."""
        if self.failed:
            self._writing.result()
        if self._newest.put(result):
            self._stats.dropped_at_sink += 1

    def __enter__(self) -> "_Writer":
        self._writing = self._thread.submit(self._write_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._newest.close()
        self._thread.shutdown()
        if kind is None:
            self._writing.result()

    def _write_all(self) -> None:
        while (result := self._newest.take()) is not None:
            began_s = time.monotonic()
            self._sink.write(result.after)
            ended_s = time.monotonic()
            self._stats.write.add((ended_s - began_s) * 1e3)
            self._stats.total.add((ended_s - result.captured_s) * 1e3)
            self._stats.written += 1


def _summary(stats: LiveStats, seconds: float) -> LiveSummary:
    return LiveSummary(
        frames=stats.written,
        dropped=stats.dropped + stats.dropped_at_sink,
        lost=stats.lost,
        seconds=seconds,
        fps=stats.written / seconds,
        latency_ms=stats.total.statistics(),
        stages_ms={name: histogram.statistics() for name, histogram in stats.stages.items()},
        steps=dict(sorted(stats.steps.items())),
        counters=stats.counters,
    )
