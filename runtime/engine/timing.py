"""Where the time of one inference on a GPU goes, by events on the stream.

The engine is launched as `infer` does it, as a CUDA graph if it can be captured; the copies stand outside of that
graph, between the events.
"""

import math
import time
from contextlib import ExitStack
from itertools import pairwise

from unblur.runtime.engine.cuda import Event
from unblur.runtime.engine.session import FLOAT_BYTES, Equipment, Session
from unblur.runtime.frames import Batch
from unblur.runtime.runner import Parts


def run_timed(session: Session, equipment: Equipment, batch: Batch, restored: Batch) -> Parts:
    """Put a batch through the engine into `restored`, and tell the parts of the time it took.

    session: of an EngineWork for batches of this shape. `host` is what the CPU's clock shows beyond the GPU's.
    """
    session.prepare()  # captures once, which is no part of an inference
    started = time.perf_counter()
    equipment.source.write(batch)
    copy_in, device, copy_out = _gpu_ms(session, equipment, batch.shape)
    equipment.target.read(restored)
    whole = (time.perf_counter() - started) * 1e3
    return Parts(max(0.0, whole - copy_in - device - copy_out), copy_in, device, copy_out)


def _gpu_ms(session: Session, equipment: Equipment, shape: tuple[int, ...]) -> list[float]:
    """Upload, execute, download; the time of each in ms."""
    stream, nbytes = equipment.stream, FLOAT_BYTES * math.prod(shape)
    with ExitStack() as marks:

        def mark() -> Event:
            event = stream.record()
            marks.callback(event.free)
            return event

        events = [mark()]
        equipment.source.upload(nbytes, stream)
        events.append(mark())
        session.launch()
        events.append(mark())
        equipment.target.download(nbytes, stream)
        events.append(mark())
        stream.wait()
        return [later.elapsed_ms(earlier) for earlier, later in pairwise(events)]
