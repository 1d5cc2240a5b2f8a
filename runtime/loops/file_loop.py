"""Move frames from a source through a network to a sink: decoding, inference and encoding overlap.

with open_source("clip.mp4") as source, Deblurrer("lprn-s") as deblur:
    with open_sink("sharp.mp4", source.info) as sink:
        summary = run_stream(source, deblur, sink)
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unblur.runtime.frames import Frame
from unblur.runtime.loops.queues import Channel
from unblur.runtime.loops.stats import LatencyHistogram
from unblur.runtime.media.interfaces import Sink, Source, TimedFrame

# Enough to ride out the jitter of a decoder and an encoder that are faster than the network on average; more
# would only hold memory: three 4K frames are 75 MB.
_DEPTH = 2


class Restore(Protocol):
    """What a `Deblurrer` is to the loop: one frame in, one of the same shape out."""

    def __call__(self, frame_rgb: Frame, out: Frame | None = None) -> Frame:
        """uint8 RGB (H, W, 3) -> the same shape, in `out` if it is given."""
        ...


@dataclass(frozen=True)
class StreamSummary:
    """What one run of the loop did.

    frames: written to the sink. dropped: decoded, but left out to keep up (a file loop drops none).
    lost: could not be decoded. stopped: the caller ended it before the source did.
    seconds: from the first read to the finished sink.
    latency_ms: of one frame, from the decoded picture to the restored one: p50, p90, p99 (within half a percent),
        mean, max; waiting in the queues of a file loop does not count. Empty if there was no frame.
    """

    frames: int
    dropped: int
    lost: int
    seconds: float
    fps: float
    latency_ms: dict[str, float]
    stopped: bool


def run_stream(
    source: Source,
    restore: Restore,
    sink: Sink,
    *,
    stop: threading.Event | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> StreamSummary:
    """Restore every frame of `source` into `sink`, in order, and finish the sink.

    The source is read in one thread and the sink written in another; `restore` runs in the caller's, which owns
    the device. An exception in any of the three stops all, is raised here once, and leaves the sink unfinished.

    stop: set it to end early: what was restored so far is written and the sink is finished, if there was a frame.
    on_frame: called after each restored frame, in the caller's thread.
    """
    stop = stop or threading.Event()
    started = time.perf_counter()
    decoded, restored = Channel[TimedFrame](_DEPTH), Channel[TimedFrame](_DEPTH)
    buffers = _FrameRing(_DEPTH + 2)
    latency = LatencyHistogram()
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="unblur") as threads:
        reading = threads.submit(_read, source, decoded)
        writing = threads.submit(_write, sink, restored)
        with closing(decoded), closing(restored):
            for frame in decoded:
                if stop.is_set():
                    break
                began = time.perf_counter()
                rgb = restore(frame.rgb, out=buffers.next(frame.rgb.shape))
                latency.add((time.perf_counter() - began) * 1e3)
                if not restored.put(dataclasses.replace(frame, rgb=rgb)):
                    break
                on_frame()
    reading.result()
    writing.result()
    if latency.count:
        sink.finish(complete=not stop.is_set())
    seconds = time.perf_counter() - started
    return StreamSummary(
        frames=latency.count,
        dropped=0,
        lost=source.lost_frames,
        seconds=seconds,
        fps=latency.count / seconds,
        latency_ms=latency.statistics(),
        stopped=stop.is_set(),
    )


class _FrameRing:
    """Output buffers used in turn, so that none is allocated per frame.

    With a channel of depth D there must be D + 2: D restored frames wait, one is being written, one is being
    restored. By the time the oldest is used again, its frame has left the writer.
    """

    def __init__(self, count: int) -> None:
        self._buffers = [np.empty((0, 0, 3), np.uint8)] * count
        self._index = 0

    def next(self, shape: tuple[int, ...]) -> Frame:
        self._index = (self._index + 1) % len(self._buffers)
        if self._buffers[self._index].shape != shape:
            self._buffers[self._index] = np.empty(shape, np.uint8)
        return self._buffers[self._index]


def _read(source: Source, decoded: Channel[TimedFrame]) -> None:
    with closing(decoded):
        for frame in source:
            if not decoded.put(frame):
                return


def _write(sink: Sink, restored: Channel[TimedFrame]) -> None:
    with closing(restored):
        for frame in restored:
            sink.write(frame)
