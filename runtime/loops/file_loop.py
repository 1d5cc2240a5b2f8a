"""Move the frames of a file through a network to a sink: decoding, inference and encoding overlap.

with open_file_session(RunRequest("lprn-s", "clip.mp4", sinks=("sharp.mp4",))) as session:
    summary = session.run()
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from unblur.runtime.loops.queues import Channel
from unblur.runtime.loops.restorer import (
    InferenceTimeout,
    Overlap,
    RestoredFrame,
    Restorer,
    naming_frame,
)
from unblur.runtime.loops.stats import LoopStats, RunSummary
from unblur.runtime.media.interfaces import Sink, Source, TimedFrame

# Enough to ride out the jitter of a decoder and an encoder that are faster than the network on average; more
# would only hold memory: three 4K frames are 75 MB.
_DEPTH = 2


def run_file_loop(
    source: Source,
    restorer: Restorer,
    sink: Sink,
    *,
    strength: float = 1,
    deadline_ms: float | None = None,
    timeout_s: float = math.inf,
    stats: LoopStats | None = None,
    stop: threading.Event | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> RunSummary:
    """Restore every frame of `source` into `sink`, in order, and finish the sink.

    The source is read in one thread and the sink written in another; the restorer runs in the caller's, which owns
    the device. An exception in any of the three stops all, is raised here once, and leaves the sink unfinished.

    strength: see `Overlap`. deadline_ms: of each frame; None takes the highest rung. timeout_s: see
    InferenceTimeout.
    stats: counters to go on with, of a run that has several files; default new ones.
    stop: set it to end early: what was restored so far is written and the sink is finished, if there was a frame.
    on_frame: called after each restored frame, in the caller's thread.
    """
    stop, stats = stop or threading.Event(), stats or LoopStats()
    written_before, stats.rung_names = stats.written, restorer.rung_names
    began_s = time.perf_counter()
    decoded, restored = Channel[TimedFrame](_DEPTH), Channel[TimedFrame](_DEPTH)
    overlap = Overlap(restorer, deadline_ms, strength)

    def hand_over(frame: TimedFrame, result: RestoredFrame) -> bool:
        stats.count_restored(result.rung, result.ms, late=result.late)
        taken = restored.put(dataclasses.replace(frame, rgb=result.rgb))
        if taken:
            on_frame()
        return taken

    with (
        InferenceTimeout(timeout_s) as timeout,
        ThreadPoolExecutor(max_workers=2, thread_name_prefix="unblur") as threads,
    ):
        reading = threads.submit(_read, source, decoded, stats)
        writing = threads.submit(_write, sink, restored, stats)
        with closing(decoded), closing(restored):
            for frame in decoded:
                if stop.is_set():
                    break
                with naming_frame(stats.restored), timeout.frame():
                    done = overlap.restore(frame)
                if not all(hand_over(*each) for each in done):
                    break
            with naming_frame(stats.restored), timeout.frame():
                done = overlap.rest()
            all(hand_over(*each) for each in done)
    reading.result()
    writing.result()
    if stats.written > written_before:
        sink.finish(complete=not stop.is_set())
    stats.lost += source.lost_frames
    return stats.summary(stats.restore, time.perf_counter() - began_s, stopped=stop.is_set())


def _read(source: Source, decoded: Channel[TimedFrame], stats: LoopStats) -> None:
    with closing(decoded):
        for frame in source:
            stats.captured += 1
            if not decoded.put(frame):
                return


def _write(sink: Sink, restored: Channel[TimedFrame], stats: LoopStats) -> None:
    with closing(restored):
        for frame in restored:
            began_s = time.perf_counter()
            sink.write(frame)
            stats.write.add((time.perf_counter() - began_s) * 1e3)
            stats.written += 1
