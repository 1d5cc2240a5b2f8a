"""Where the time of one inference of an engine goes, by events that the GPU notes on its way."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise

from unblur.runtime.frames import Batch
from unblur.runtime.runner import InferenceTiming
from unblur.runtime.tensorrt.cuda import Event
from unblur.runtime.tensorrt.engine_buffers import EngineBuffers, Session


def run_timed(session: Session, buffers: EngineBuffers, batch: Batch, restored: Batch) -> InferenceTiming:
    """Put a batch through the engine into `restored`, and return where its time went.

    session: of an EngineWork for batches of this shape.
    """
    session.prepare()  # captures once, which is not part of an inference
    started_s, stream = time.perf_counter(), buffers.stream
    buffers.write(batch)
    with ExitStack() as marks:

        def mark() -> Event:
            event = stream.record()
            marks.callback(event.free)
            return event

        events = [mark()]
        buffers.copy_in(batch.shape)
        events.append(mark())
        session.launch()
        events.append(mark())
        buffers.copy_out(batch.shape)
        events.append(mark())
        stream.wait()
        buffers.read(restored)
        return timing_of(started_s, events)


def timing_of(started_s: float, events: Sequence[Event]) -> InferenceTiming:
    """From the events before and after copy in, network and copy out, all done.

    started_s: of the inference, by `time.perf_counter`. `host_ms` is what that shows beyond the GPU's own time.
    """
    copy_in, device, copy_out = (later.elapsed_ms(earlier) for earlier, later in pairwise(events))
    whole_ms = (time.perf_counter() - started_s) * 1e3
    return InferenceTiming(max(0.0, whole_ms - copy_in - device - copy_out), copy_in, device, copy_out)
