"""Several cameras on one model in memory, in fair turns.

    capture threads -> newest frame of each -> this thread restores one after the other -> sink threads

requests = [RunRequest("lprn-s", f"rtsp://{host}/1", (f"{host}.mkv",)) for host in ("door", "yard")]
with open_cameras(requests) as cameras:
    results = cameras.run()

Captures, sinks, counters and rungs are each camera's own. A camera without a new frame misses its turn and
holds up nobody; one that ends, or whose sink fails, leaves the others running.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from unblur.runtime.errors import UnblurError
from unblur.runtime.frames import FramePool
from unblur.runtime.loops.live_loop import POLL_S, ServiceNotifier, SinkThread, restore_captured
from unblur.runtime.loops.restorer import InferenceTimeout
from unblur.runtime.loops.session import LiveSession, RunRequest, open_live_session
from unblur.runtime.loops.stats import RunSummary

_log = logging.getLogger(__name__)

_FAILURES = (UnblurError, OSError)  # of a source or a sink


@dataclass(frozen=True)
class CameraResult:
    """What became of one camera. error: what ended it before the others; None if nothing did."""

    name: str
    summary: RunSummary
    error: Exception | None


class _Lane:
    """One camera in the loop, from its capture to its sink."""

    def __init__(self, name: str, session: LiveSession) -> None:
        self.name, self.session = name, session
        self.ended = False
        self.error: Exception | None = None
        self._pool = FramePool()
        session.stats.rung_names = session.ladder.rung_names
        self._writer = SinkThread(session.sink, session.stats)
        self._writer.__enter__()

    def turn(self, timeout: InferenceTimeout) -> bool:
        """Restore the newest frame, if there is one. Raises what the network raises; other errors end the lane."""
        session = self.session
        try:
            captured = session.capture.take(0)
        except _FAILURES as error:
            self.end(error)
            return False
        if captured is None:
            if session.capture.ended:
                self.end()
            return False
        with timeout.frame():
            result = restore_captured(captured, session.ladder, session.controls, self._pool, session.stats)
        try:
            self._writer.put(result)
        except _FAILURES as error:
            self.end(error)
        return True

    def end(self, error: Exception | None = None) -> None:
        """Write what is still to be written and finish the sink, unless it failed. A second call does nothing."""
        if self.ended:
            return
        self.ended, self.error = True, error
        self.session.capture.stop()
        try:
            self._writer.__exit__(None, None, None)
            if self.session.stats.written:
                self.session.sink.finish(complete=True)
        except _FAILURES as failed:
            self.error = self.error or failed
        if self.error is not None:
            _log.warning("%s ended: %s", self.name, self.error)


@dataclass(frozen=True)
class Cameras:
    """Open cameras by name; the loop has not started yet. frame_ready: set by their captures."""

    sessions: dict[str, LiveSession]
    frame_ready: threading.Event

    def run(
        self,
        stop: threading.Event | None = None,
        on_turn: Callable[[], object] = lambda: None,
    ) -> list[CameraResult]:
        """Restore until `stop` is set or every camera has ended, then finish the sinks.

        on_turn: called after every round of turns, in the caller's thread. Raises what the network raises.
        """
        stop, notifier, began_s = stop or threading.Event(), ServiceNotifier(), time.monotonic()
        timeout_s = max((session.timeout_s for session in self.sessions.values()), default=math.inf)
        lanes = [_Lane(name, session) for name, session in self.sessions.items()]
        try:
            with InferenceTimeout(timeout_s) as timeout:
                notifier.ready()
                while not stop.is_set() and not all(lane.ended for lane in lanes):
                    notifier.alive()
                    self.frame_ready.clear()
                    if sum(lane.turn(timeout) for lane in lanes if not lane.ended) == 0:
                        self.frame_ready.wait(POLL_S)
                    on_turn()
        finally:
            notifier.stopping()
            for lane in lanes:
                lane.end()
        seconds = time.monotonic() - began_s
        return [_result(lane, seconds, stopped=stop.is_set()) for lane in lanes]


def _result(lane: _Lane, seconds: float, *, stopped: bool) -> CameraResult:
    stats = lane.session.stats
    return CameraResult(lane.name, stats.summary(stats.total, seconds, stopped=stopped), lane.error)


@contextmanager
def open_cameras(requests: Sequence[RunRequest]) -> Iterator[Cameras]:
    """Open the model of the first request and every camera; close them in turn.

    Where a request states no deadline, the frame time of its camera is shared by all of them. Raises what
    `open_live_session` raises: nothing runs until all are there.
    """
    ready = threading.Event()
    with ExitStack() as stack:
        sessions: list[LiveSession] = []
        for request in requests:
            shared = sessions[0].ladder if sessions else None
            opened = open_live_session(request, shared=shared, on_frame=ready.set)
            sessions.append(stack.enter_context(opened))
            if request.deadline_ms is None:
                controls = sessions[-1].controls
                controls.deadline_ms = (controls.deadline_ms or math.inf) / len(requests)
        names = _unique(session.capture.info.name for session in sessions)
        yield Cameras(dict(zip(names, sessions, strict=True)), ready)


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Addresses may differ in what is not shown: "rtsp://a/1", "rtsp://a/1 #2"."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} #{seen[name]}"
