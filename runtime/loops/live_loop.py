"""The live loop: the newest frame of a camera through the network to the sinks, as fast as it goes.

    capture thread -> newest frame -> this thread restores it -> newest result -> sink thread

Nothing queues up. A frame waits at most until the network is free, and by then it has been replaced by a newer one
if there is one: what is shown is at most two frame times and one inference old, however slow the model is.
Files go through `run_file_loop`, which drops nothing.
"""

import dataclasses
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from unblur.runtime.blur import BlurGate
from unblur.runtime.frames import FramePool, blend, eight_bits
from unblur.runtime.loops.capture import CapturedFrame, ReconnectingCapture
from unblur.runtime.loops.queues import LatestValue
from unblur.runtime.loops.restorer import InferenceTimeout, RestoredFrame, Restorer, naming_frame, take_output
from unblur.runtime.loops.stats import LoopStats, RunSummary
from unblur.runtime.media.interfaces import Sink, TimedFrame
from unblur.runtime.runner import YuvRunner

POLL_S = 0.5
"""How soon a stop is noticed while no frame comes."""


@dataclass
class LiveControls:
    """What may be changed while the loop runs, from any thread; read once per frame.

    deadline_ms: of one frame in the network; None always takes the highest rung. highest_rung: None is no limit.
    gate: spares frames that are sharp already; None restores all. strength: 0 shows the source, 1 the restoration.
    """

    deadline_ms: float | None = None
    highest_rung: int | None = None
    gate: BlurGate | None = None
    strength: float = 1


@dataclass(frozen=True)
class FrameResult:
    """A frame before and after. before, after: uint8 RGB, same shape; not to be written to.
    captured_s: when the frame was there, on the clock of `time.monotonic`.
    """

    before: TimedFrame
    after: TimedFrame
    restored: RestoredFrame
    captured_s: float


class ServiceNotifier:
    """Reports to systemd that the service is ready and alive, by sd_notify(3); does nothing where it does not ask.

    `alive` is called from the loop itself, not from a timer: a loop that hangs in a driver is silent.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """environment: NOTIFY_SOCKET and, for a unit with WatchdogSec, WATCHDOG_USEC."""
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        self._period_s = int(watchdog_us) / 1e6 / 4 if watchdog_us.isdecimal() else None
        self._sent_s = float("-inf")

    def ready(self) -> None:
        """The loop runs."""
        self._send(b"READY=1")

    def alive(self) -> None:
        """Call it at least every second; four times in the watchdog's period it is passed on."""
        now_s = time.monotonic()
        if self._period_s is not None and now_s - self._sent_s >= self._period_s:
            self._sent_s = now_s
            self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """The loop ends and its sinks are being finished."""
        self._send(b"STOPPING=1")

    def _send(self, message: bytes) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection, suppress(OSError):
            connection.sendto(message, self._address)


def run_live_loop(
    capture: ReconnectingCapture,
    restorer: Restorer,
    sink: Sink,
    stats: LoopStats,
    *,
    controls: LiveControls | None = None,
    stop: threading.Event | None = None,
    timeout_s: float = math.inf,
    on_result: Callable[[FrameResult], None] = lambda result: None,
) -> RunSummary:
    """Restore what the capture gives until `stop` is set or the capture ends, then finish the sink.

    capture, sink: entered by the caller. on_result: called with every frame, in the caller's thread; must not wait.
    Raises what ended the capture or what the network raised, after the sink was finished all the same, or what the
    sink raised, which then decides by itself what it keeps.
    """
    controls, stop = controls or LiveControls(), stop or threading.Event()
    pool = FramePool()
    stats.rung_names = restorer.rung_names
    started_s = time.monotonic()
    writer, notifier = SinkThread(sink, stats), ServiceNotifier()
    try:
        with writer, InferenceTimeout(timeout_s) as timeout:
            notifier.ready()
            for captured in _frames(capture, stop, notifier):
                with timeout.frame():
                    result = restore_captured(captured, restorer, controls, pool, stats)
                writer.put(result)
                on_result(result)
    finally:  # a camera that is gone for good leaves its recording whole
        notifier.stopping()
        if stats.written and not writer.failed:
            sink.finish(complete=True)
    return stats.summary(stats.total, time.monotonic() - started_s, stopped=stop.is_set())


def _frames(
    capture: ReconnectingCapture, stop: threading.Event, notifier: ServiceNotifier
) -> Iterator[CapturedFrame]:
    while not stop.is_set():
        notifier.alive()
        captured = capture.take(POLL_S)
        if captured is not None:
            yield captured
        elif capture.ended:
            return


def restore_captured(
    captured: CapturedFrame, restorer: Restorer, controls: LiveControls, pool: FramePool, stats: LoopStats
) -> FrameResult:
    """Restore a frame, or pass it on if the gate finds it sharp, and count it. pool: for the restored frames."""
    began_s = time.monotonic()
    stats.wait.add((began_s - captured.at_s) * 1e3)
    before = captured.frame
    highest = controls.highest_rung
    worth = None if controls.gate is None else controls.gate.highest_rung(eight_bits(before.rgb))
    if worth == 0:
        restored = RestoredFrame(before.rgb, 0, 0.0, late=False)
        stats.passed += 1
    else:
        if worth is not None:
            highest = worth
        out = take_output(pool, before.image, restorer)
        with naming_frame(stats.restored):
            given = before.image if isinstance(restorer.runner, YuvRunner) else before.rgb
            restored = restorer.restore(given, out, deadline_ms=controls.deadline_ms, highest_rung=highest)
        if controls.strength < 1:
            blend(before.rgb, restored.rgb, controls.strength)
    stats.count_restored(restored.rung, (time.monotonic() - began_s) * 1e3, late=restored.late)
    after = dataclasses.replace(before, rgb=restored.rgb)
    return FrameResult(before, after, restored, captured.at_s)


class SinkThread:
    """Writes the newest result in a thread of its own, so that a slow sink costs frames and not latency."""

    def __init__(self, sink: Sink, stats: LoopStats) -> None:
        self._sink = sink
        self._stats = stats
        self._latest = LatestValue[FrameResult]()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unblur-sink")

    @property
    def failed(self) -> bool:
        """The sink raised an error."""
        return self._writing.done() and self._writing.exception() is not None

    def put(self, result: FrameResult) -> None:
        """Leave a result to be written. Raises the error of the sink if it has failed."""
        if self.failed:
            self._writing.result()
        if self._latest.put(result):
            self._stats.dropped_at_sink += 1

    def __enter__(self) -> "SinkThread":
        self._writing = self._thread.submit(self._write_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._latest.close()
        self._thread.shutdown()
        if kind is None:
            self._writing.result()

    def _write_all(self) -> None:
        while (result := self._latest.take()) is not None:
            began_s = time.monotonic()
            self._sink.write(result.after)
            ended_s = time.monotonic()
            self._stats.write.add((ended_s - began_s) * 1e3)
            self._stats.total.add((ended_s - result.captured_s) * 1e3)
            self._stats.written += 1
