"""A live source that comes back: the newest frame of a camera, whatever happens to its cable.

with ReconnectingCapture(lambda: open_source("rtsp://camera/stream"), stats) as capture:
    while captured := capture.take(timeout_s=1):
        ...
"""

import logging
import math
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from unblur.runtime.errors import BadInput, UnblurError
from unblur.runtime.loops.queues import LatestValue
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.media.interfaces import MediaInfo, Source, TimedFrame

_log = logging.getLogger(__name__)

_OPENING_S = 30.0  # a source that takes longer to open hangs
_GOODBYE_S = 2.0  # for a capture thread to end; one that hangs is left behind, it is a daemon
_JITTER = 0.5  # a hundred cameras behind one switch should not come back in one moment


@dataclass(frozen=True)
class Reconnect:
    """When to give a source up and how to come back.

    stall_s: without a frame for this long it is opened again. first_s, most_s: wait before an attempt, doubled
    after every one that fails. retries: attempts in a row that fail before the loop ends; None is no limit.
    steady_s: an attempt has failed unless frames came for this long.
    """

    stall_s: float = 5.0
    first_s: float = 0.5
    most_s: float = 30.0
    retries: int | None = None
    steady_s: float = 10.0

    def wait_s(self, failures: int) -> float:
        """Seconds before the next attempt after so many failures in a row, without jitter."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 32))


@dataclass(frozen=True)
class CapturedFrame:
    """A frame and when it was there, on the clock of `time.monotonic`."""

    frame: TimedFrame
    at_s: float


@dataclass
class _CaptureState:
    """Of one capture thread. wanted: False once it was left behind. patience_s: how long it may take until the next
    sign of life.
    """

    wanted: bool = True
    patience_s: float = math.inf


class ReconnectingCapture:
    """Captures in a thread of its own and holds the newest frame only.

    A source that ends, fails or stalls is opened again, with a growing wait; one that says how many frames it has
    ends with the last. A thread that hangs in a driver
    cannot be ended: it is left behind, and should it ever wake, it finds that it is no longer wanted.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        stats: LoopStats,
        reconnect: Reconnect = Reconnect(),
        *,
        on_frame: Callable[[], object] = lambda: None,
    ) -> None:
        """open_source: called once on entering, which raises what it raises, and for every reconnect.

        on_frame: called in the capture thread when there is a new frame to take.
        """
        self._open_source = open_source
        self._on_frame = on_frame
        self._stats = stats
        self._reconnect = reconnect
        self._latest = LatestValue[CapturedFrame]()
        self._stop = threading.Event()
        self._failures = 0
        self._error: UnblurError | None = None
        self._last_s = 0.0
        self._info: MediaInfo | None = None
        self._state = _CaptureState()

    @property
    def info(self) -> MediaInfo:
        """Of the source as it was last opened. ValueError before the capture is entered."""
        if self._info is None:
            raise ValueError("the capture is not open yet")
        return self._info

    @property
    def ended(self) -> bool:
        """No more frames will come, and the last one was taken."""
        return self._latest.closed and self._latest.empty

    def take(self, timeout_s: float) -> CapturedFrame | None:
        """The newest frame that was not taken yet; None if there is none within `timeout_s`, or at the end.

        Raises the error that ended the capture. Call it often: it is also what notices that the source stalls.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.ended:
            if not self._latest.closed:
                self._leave_if_stalled()
            left_s = deadline_s - time.monotonic()
            captured = self._latest.take(max(0.0, min(left_s, self._reconnect.stall_s / 4)))
            if captured is not None or left_s <= 0:
                return captured
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """End the capture; a waiting `take` returns. The source is closed by its own thread."""
        self._stop.set()
        self._latest.close()

    def __enter__(self) -> "ReconnectingCapture":
        source = self._open_source()
        self._info = source.info
        self._start(source)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(timeout=_GOODBYE_S)

    def _leave_if_stalled(self) -> None:
        quiet_s = time.monotonic() - self._last_s
        if quiet_s < self._state.patience_s:
            return
        self._state.wanted = False
        self._stats.stalls += 1
        if self._may_retry(f"no frame for {quiet_s:.1f} s", None):
            self._stats.reconnects += 1
            self._start(None)

    def _start(self, source: Source | None) -> None:
        self._state = _CaptureState()
        self._last_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._capture, args=(self._state, source), name="unblur-capture", daemon=True
        )
        self._thread.start()

    def _capture(self, state: _CaptureState, source: Source | None) -> None:
        """Read one source after the other; the body of the capture thread."""
        while source is not None or not self._wait_for_next_attempt():
            why, error = "the stream ended", None
            try:
                self._read(state, source or self._open_again(state))
                if self.info.frames is not None:  # it has an end, and this was it
                    self._latest.close()
                    return
            except UnblurError as caught:
                why, error = str(caught), without_frames(caught)
            state.patience_s = math.inf
            if not state.wanted or self._stop.is_set() or not self._may_retry(why, error):
                return
            source = None
            self._stats.reconnects += 1

    def _wait_for_next_attempt(self) -> bool:
        """True if the capture was stopped meanwhile."""
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
        return self._stop.wait(self._reconnect.wait_s(self._failures) * jitter)

    def _open_again(self, state: _CaptureState) -> Source:
        self._last_s, state.patience_s = time.monotonic(), _OPENING_S
        source = self._open_source()
        self._info = source.info
        return source

    def _read(self, state: _CaptureState, source: Source) -> None:
        with source:
            began_s = self._last_s = time.monotonic()
            state.patience_s = self._reconnect.stall_s
            lost = 0
            for frame in source:
                if not state.wanted or self._stop.is_set():
                    return
                self._put(frame)
                if self._last_s - began_s >= self._reconnect.steady_s:
                    self._failures = 0
                lost = self._count_lost(source, lost)
            self._count_lost(source, lost)

    def _count_lost(self, source: Source, before: int) -> int:
        """Of a camera the losses so far, of a file all of them at its end."""
        lost = source.lost_frames
        self._stats.lost += lost - before
        return lost

    def _put(self, frame: TimedFrame) -> None:
        self._last_s = time.monotonic()
        self._stats.captured += 1
        if self._latest.put(CapturedFrame(frame, self._last_s)):
            self._stats.dropped += 1
        self._on_frame()

    def _may_retry(self, why: str, error: UnblurError | None) -> bool:
        """Count a failure; False, and the capture ends with an error, if there were too many in a row."""
        self._failures += 1
        retries = self._reconnect.retries
        if retries is None or self._failures <= retries:
            _log.warning("%s: %s; opening it again (attempt %d)", self.info.name, why, self._failures)
            return True
        self._error = error or BadInput(f"{self.info.name}: {why}, and {retries} attempts did not bring it back")
        self._latest.close()
        return False


def without_frames(error: UnblurError) -> UnblurError:
    """The error alone. Its traceback refers to the frames it passed through and these to the error: a cycle that
    would keep the decoder, its threads and its buffers until the garbage collector comes by, which may be never.
    """
    linked: BaseException | None = error
    while linked is not None:
        traceback.clear_frames(linked.__traceback__)
        linked.__traceback__ = None
        linked = linked.__cause__ or linked.__context__
    error.__cause__ = error.__context__ = None
    return error
