"""A TensorRT engine as a Runner, and as a FrameRunner that converts frames on the GPU.

    with EngineRunner(Path("lprn-s.unblur/engines/tensorrt-10.3.0-sm87-fp16-6-0a1b2c3d4e.engine")) as runner:
        runner.infer_frame(blurred_rgb, out=sharp_rgb)

What is done for one frame, on the runner's own stream; from the second frame of a size on, as one CUDA graph:

    discrete GPU     pinned -> copy -> kernel -> engine -> kernel -> copy -> pinned
    integrated GPU   mapped         -> kernel -> engine -> kernel         -> mapped

A Jetson's GPU reads and writes mapped memory directly but does not cache it, so the kernels, which touch every
byte once, work on it, while the engine's own input and output lie in memory that the GPU caches.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import (
    Batch,
    Frame,
    NetworkValues,
    Padding,
    batch_from_frame,
    check_finite,
    check_frame,
    frame_from_batch,
    not_finite,
)
from unblur.runtime.runner import InferenceTiming, check_batch
from unblur.runtime.spec import ModelSpec, Precision
from unblur.runtime.tensorrt.cuda import Cuda, Event
from unblur.runtime.tensorrt.engine_buffers import (
    HEADER_BYTES,
    BatchWork,
    EngineBuffers,
    EngineWork,
    FrameWork,
    Session,
    Work,
)
from unblur.runtime.tensorrt.engine_file import (
    DeviceFacts,
    EngineRecord,
    check_engine,
    read_engine,
    read_record,
    this_platform,
)
from unblur.runtime.tensorrt.open_cuda import open_cuda
from unblur.runtime.tensorrt.trt import Execution, TensorRT, load_tensorrt


def run_timed(session: Session, buffers: EngineBuffers, batch: Batch, restored: Batch) -> InferenceTiming:
    """Put a batch through the engine into `restored`, and return where its time went.

    session: of an EngineWork for batches of this shape. `host_ms` is what the CPU's clock shows beyond the GPU's.
    """
    session.prepare()  # captures once, which is not part of an inference
    started = time.perf_counter()
    buffers.source.write(batch)
    copy_in, device, copy_out = _gpu_ms(session, buffers, batch.nbytes, restored.nbytes)
    buffers.target.read(restored)
    whole = (time.perf_counter() - started) * 1e3
    return InferenceTiming(max(0.0, whole - copy_in - device - copy_out), copy_in, device, copy_out)


def _gpu_ms(session: Session, buffers: EngineBuffers, in_bytes: int, out_bytes: int) -> list[float]:
    """Upload, execute, download; the time of each in ms."""
    stream = buffers.stream
    with ExitStack() as marks:

        def mark() -> Event:
            event = stream.record()
            marks.callback(event.free)
            return event

        events = [mark()]
        buffers.source.upload(in_bytes, stream)
        events.append(mark())
        session.launch()
        events.append(mark())
        buffers.target.download(out_bytes, stream)
        events.append(mark())
        stream.wait()
        return [later.elapsed_ms(earlier) for earlier, later in pairwise(events)]


class EngineRunner:
    """Runs an engine that unblur built. Not for two threads at once: the second one is refused.

    engine: the file, its record beside it. cuda, trt: the GPU and TensorRT to use; default those of this machine.
    graph: False enqueues every frame anew, which is easier to look at in a profiler.

    All memory is allocated here, for the largest size that the engine takes. After an error of the GPU nothing
    more is computed: what a frame would show is then unknown.

    Raises EngineMismatch if the engine cannot run here, DeviceError if there is no GPU, driver or memory,
    MissingExtra if TensorRT is not installed.
    """

    def __init__(
        self, engine: Path, *, cuda: Cuda | None = None, trt: TensorRT | None = None, graph: bool = True
    ) -> None:
        record = read_record(engine)
        # Before TensorRT is loaded: this asks the driver whether it is there.
        self._cuda = cuda or open_cuda()
        self._trt = trt or load_tensorrt(record.identity.flavour)
        check_engine(record, device_facts(self._cuda, self._trt))
        self.path = engine
        self.path = engine
        self._record = record
        self._graphs = graph
        self._lock = threading.Lock()
        self._is_open = True
        self._failure = ""
        self._session: Session | None = None
        self._values = NetworkValues(record.spec)
        self._taken: Batch = np.empty((0, 3, 0, 0), np.float32)
        self._restored: Batch = np.empty((0, 3, 0, 0), np.float32)
        data = read_engine(engine, record)
        with self._cuda.current(), ExitStack() as opening:
            execution = Execution(self._trt, data, record)
            opening.callback(execution.close)
            self._buffers = EngineBuffers(opening, self._cuda, execution, record)
            self._opened = opening.pop_all()

    @property
    def spec(self) -> ModelSpec:
        return self._record.spec

    @property
    def record(self) -> EngineRecord:
        return self._record

    @property
    def device(self) -> str:
        return f"{self._cuda.device} ({self._trt})"

    @property
    def precision(self) -> Precision:
        return self._record.identity.precision

    def infer(self, batch: Batch) -> Batch:
        """See Runner. The result is overwritten by the next call with a batch of the same shape.

        Raises EngineMismatch if the engine was not built for that shape, DeviceError if the GPU fails or another
        thread is in here.
        """
        check_batch(batch, self.spec.multiple_of)
        with self._exclusively():
            session = self._session_for(BatchWork(batch.shape))
            self._buffers.source.write(self._network_batch(batch))
            session.run()
            # A copy: memory of the driver must not be seen by a caller who may keep it beyond `close`.
            self._buffers.target.read(self._restored_like(batch))
            self._to_rgb(batch)
        return self._restored

    def timed_infer(self, batch: Batch) -> tuple[Batch, InferenceTiming]:
        """As `infer`, with its timing."""
        check_batch(batch, self.spec.multiple_of)
        with self._exclusively():
            session = self._session_for(EngineWork(batch.shape))
            timing = run_timed(session, self._buffers, self._network_batch(batch), self._restored_like(batch))
            self._to_rgb(batch)
        return self._restored, timing

    def profile_layers(self, batch: Batch, runs: int) -> tuple[str, dict[str, list[float]]]:
        """The engine's report of its layers, JSON, and the times of each in ms in the order of `runs` inferences.

        The runner is slower from then on: open one for this alone, with `graph=False`, as a graph reports no times.
        """
        check_batch(batch, self.spec.multiple_of)
        times: dict[str, list[float]] = {}
        with self._exclusively():
            session = self._session_for(BatchWork(batch.shape))
            self._buffers.source.write(batch)
            self._buffers.execution.report_layers(lambda name, ms: times.setdefault(name, []).append(ms))
            for _ in range(runs):
                session.run()
            return self._buffers.execution.inspect(), times

    def infer_frame(self, frame_rgb: Frame, out: Frame) -> None:
        """Restore one frame, uint8 RGB (H, W, 3) of any size that the engine takes when padded, into `out`.

        out: of the same shape; it may be `frame_rgb` itself. Errors as of `infer`.
        """
        check_frame(frame_rgb)
        check_frame(out)
        padding = Padding.to_multiple((frame_rgb.shape[0], frame_rgb.shape[1]), self.spec.multiple_of)
        shape = (*self.spec.output_hw(padding.size_hw), 3)
        if out.shape != shape:
            raise ValueError(f"out is {out.shape}, expected {shape}")
        if self._values.is_residual:
            self._infer_frame_on_cpu(frame_rgb, padding, out)
            return
        with self._exclusively():
            session = self._session_for(FrameWork(padding))
            self._buffers.source.write(frame_rgb)
            self._buffers.target.write(np.zeros(HEADER_BYTES, np.uint8))
            session.run()
            header = np.empty(HEADER_BYTES, np.uint8)
            self._buffers.target.read(header)
            self._buffers.target.read(out, HEADER_BYTES)
        if header[0]:
            raise not_finite(self.spec)

    def close(self) -> None:
        """Free everything, last made first; waits for a call in another thread. A second call does nothing."""
        with self._lock, ExitStack() as closing:
            if not self._is_open:
                return
            self._is_open = False
            if self._failure:  # the driver has freed what was on a lost GPU; that was already reported
                closing.enter_context(suppress(DeviceError))
            closing.enter_context(self._cuda.current())
            closing.push(self._opened)
            if self._session is not None:
                closing.callback(self._session.free)

    def __enter__(self) -> "EngineRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """The context is current and no other thread is here; after an error of the GPU nothing more is done."""
        if not self._lock.acquire(blocking=False):
            raise DeviceError("the engine is busy in another thread; open one runner for each thread")
        try:
            if not self._is_open:
                raise ValueError("the runner is closed")
            if self._failure:
                raise DeviceError(f"the engine failed before: {self._failure}; open it again")
            with self._cuda.current():
                yield
        except DeviceError as error:
            self._failure = self._failure or str(error)
            raise
        finally:
            self._lock.release()

    def _infer_frame_on_cpu(self, frame_rgb: Frame, padding: Padding, out: Frame) -> None:
        """Convert and add a residual here: the kernels do not."""
        restored = self.infer(batch_from_frame(frame_rgb, padding))
        check_finite(restored, self.spec)
        frame_from_batch(restored, padding.scaled(self.spec.scale), out=out)

    def _network_batch(self, batch: Batch) -> Batch:
        """What the network takes for a batch of RGB in [0, 1]."""
        if self._values.is_identity:
            return batch
        if self._taken.shape != batch.shape:
            self._taken = np.empty(batch.shape, np.float32)
        self._values.from_rgb(batch, self._taken)
        return self._taken

    def _to_rgb(self, batch: Batch) -> None:
        if not self._values.is_identity:
            self._values.to_rgb(self._restored.copy(), batch, self._restored)

    def _restored_like(self, batch: Batch) -> Batch:
        """The array for results of a batch of this shape."""
        shape = (*batch.shape[:2], *self.spec.output_hw((batch.shape[2], batch.shape[3])))
        if self._restored.shape != shape:
            self._restored = np.empty(shape, np.float32)
        return self._restored

    def _session_for(self, work: Work) -> Session:
        """The session for this work: the last one, or a new one in its place."""
        if self._session is None or self._session.work != work:
            captures = self._may_capture(work)  # refuses a size that the engine does not take
            if self._session is not None:
                self._session.free()
                self._session = None
            self._session = Session(work, self._buffers, graph=captures)
        return self._session

    def _may_capture(self, work: Work) -> bool:
        """TensorRT-RTX compiles kernels for a dynamic shape in the background; a graph would keep the slow ones."""
        identity = self._record.identity
        profile = identity.profiles[self._record.profile_for(work.batch_shape)]
        return self._graphs and (identity.flavour == "tensorrt" or profile.is_fixed)


def device_facts(cuda: Cuda, trt: TensorRT) -> DeviceFacts:
    """What an engine has to fit."""
    return DeviceFacts(trt.flavour, trt.version, cuda.device.sm, cuda.device.name, this_platform())
