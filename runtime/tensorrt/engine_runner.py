"""A TensorRT engine as a Runner, and as a FrameRunner that converts frames on the GPU.

    with EngineRunner(Path("lprn-s.unblur/engines/tensorrt-10.3.0-sm87-fp16-6-0a1b2c3d4e.engine")) as runner:
        runner.infer_frame(blurred_rgb, out=sharp_rgb)

What is done for one frame; from the second frame of a size on, what the GPU computes is one CUDA graph:

    discrete GPU     pinned -> copy -> kernel -> engine -> kernel -> copy -> pinned
    integrated GPU   mapped         -> kernel -> engine -> kernel         -> mapped

Frames are uint8 RGB, or YUV 4:2:0 as cameras give it; the kernels write and read the engine's own type, float16
for fp16 and INT8. `begin_frame` and `end_frame` overlap the copies of two frames with the network of another, see
engine_buffers.py. A Jetson's GPU reads and writes mapped memory directly but does not cache it, so the kernels,
which touch every byte once, work on it, while the engine's own tensors lie in memory that the GPU caches.
(Not yet run on a GPU.)
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
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
from unblur.runtime.model.tiles import infer_fixed
from unblur.runtime.runner import InferenceTiming, Runner, SizeRange, check_batch
from unblur.runtime.spec import ModelSpec, Precision
from unblur.runtime.tensorrt.cuda import Cuda
from unblur.runtime.tensorrt.engine_buffers import (
    SLOTS,
    BatchWork,
    EngineBuffers,
    EngineWork,
    FrameWork,
    Session,
    Slot,
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
from unblur.runtime.tensorrt.engine_timing import run_timed, timing_of
from unblur.runtime.tensorrt.open_cuda import open_cuda
from unblur.runtime.tensorrt.trt import Execution, TensorRT, load_tensorrt
from unblur.runtime.yuv import YuvFrame, batch_from_yuv


@dataclass(frozen=True)
class _Begun:
    """A frame under way in a slot, and where it is to be restored to."""

    slot: Slot
    out: Frame
    started_s: float


class EngineRunner:
    """Runs an engine that unblur built. Not for two threads at once: the second one is refused.

    engine: the file, its record beside it. cuda, trt: the GPU and TensorRT to use; default those of this machine.
    graph: False enqueues every frame anew, which is easier to look at in a profiler.

    All memory for frames is allocated here, for the largest size that the engine takes. After an error of the GPU
    nothing more is computed: what a frame would show is then unknown.

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
        self._record = record
        self._graphs = graph
        self._lock = threading.Lock()
        self._is_open = True
        self._failure = ""
        self._session: Session | None = None
        self._begun: deque[_Begun] = deque()
        self._frames = 0
        self._values = NetworkValues(record.spec)
        self._taken: Batch = np.empty((0, 3, 0, 0), np.float32)
        self._restored: Batch = np.empty((0, 3, 0, 0), np.float32)
        data = read_engine(engine, record)
        with self._cuda.current(), ExitStack() as opening:
            execution = Execution(self._trt, data, record, self._cuda)
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
    def sizes(self) -> Sequence[SizeRange]:
        """Of its profiles."""
        return [(_hw(profile.minimum), _hw(profile.maximum)) for profile in self._record.identity.profiles]

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
        if self.spec.fixed_hw not in (None, batch.shape[2:]):
            return infer_fixed(self.infer, batch, self.spec)
        with self._exclusively():
            session = self._session_for(BatchWork(batch.shape))
            self._buffers.write(self._network_batch(batch))
            session.run()
            # A copy: memory of the driver must not be seen by a caller who may keep it beyond `close`.
            self._buffers.read(self._restored_like(batch))
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
            self._buffers.write(self._network_batch(batch))
            self._buffers.execution.report_layers(lambda name, ms: times.setdefault(name, []).append(ms))
            for _ in range(runs):
                session.run()
            return self._buffers.execution.inspect(), times

    def infer_frame(self, frame_rgb: Frame, out: Frame) -> None:
        """Restore one frame, uint8 RGB (H, W, 3) of any size that the engine takes when padded, into `out`.

        out: of the same shape; it may be `frame_rgb` itself. Errors as of `infer`.
        """
        self._begin_frame(frame_rgb, out, begun=0)
        self.end_frame()

    def infer_yuv(self, frame: YuvFrame, out: Frame) -> None:
        """As `infer_frame`, of a frame that is converted to RGB on the GPU."""
        self._begin_frame(frame, out, begun=0)
        self.end_frame()

    def timed_infer_frame(self, frame_rgb: Frame, out: Frame) -> InferenceTiming:
        """As `infer_frame`, with its timing; the kernels are part of `device_ms`."""
        if self._values.is_residual:
            began_s = time.perf_counter()
            self.infer_frame(frame_rgb, out)
            return InferenceTiming((time.perf_counter() - began_s) * 1e3, 0.0, 0.0, 0.0)
        self._begin_frame(frame_rgb, out, begun=0)
        begun, slot = self._begun[0], self._begun[0].slot
        self.end_frame()
        with self._cuda.current():
            return timing_of(begun.started_s, (slot.began, slot.uploaded, slot.computed, slot.downloaded))

    def begin_frame(self, frame: Frame | YuvFrame, out: Frame) -> None:
        """Begin to restore a frame into `out`, which is filled when `end_frame` has returned for it.

        Two may be under way, ValueError for a third; meanwhile nothing else may be asked for. `frame` may be
        overwritten at once. Errors as of `infer`.
        """
        self._begin_frame(frame, out, begun=SLOTS - 1)

    def _begin_frame(self, frame: Frame | YuvFrame, out: Frame, *, begun: int) -> None:
        size_hw = (frame.shape[0], frame.shape[1])
        padding = Padding.to_multiple(size_hw, self.spec.multiple_of)
        self._check_frames(frame, out, (*self.spec.output_hw(size_hw), 3))
        if self._values.is_residual:
            self._infer_frame_on_cpu(frame, padding, out)
            return
        started_s = time.perf_counter()
        layout, data = (frame.layout, frame.pixels) if isinstance(frame, YuvFrame) else (None, frame)
        with self._exclusively(begun):
            session = self._session_for(FrameWork(padding, layout))
            slot = self._frames % SLOTS
            self._buffers.slots[slot].write(data)
            session.begin(slot)
            self._begun.append(_Begun(self._buffers.slots[slot], out, started_s))
            self._frames += 1

    def end_frame(self) -> None:
        """Wait for the frame that was begun first; its `out` is then filled. DeviceError if the GPU fails."""
        if self._values.is_residual:
            return
        with self._exclusively(begun=SLOTS):
            begun = self._begun.popleft()
            begun.slot.downloaded.wait()
            is_finite = begun.slot.read(begun.out)
        if not is_finite:
            raise not_finite(self.spec)

    def share_memory(self, other: Runner) -> None:
        """Compute in one piece of scratch memory with another engine, the larger of theirs.

        Only for runners that are never used at the same time. Does nothing for a runner of another kind, or where
        TensorRT allocates that memory itself (before 10.1).
        """
        if not isinstance(other, EngineRunner) or self._cuda.device != other._cuda.device:
            return
        with self._exclusively(), other._exclusively():
            mine, theirs = self._buffers.execution.memory, other._buffers.execution.memory
            if mine is None or theirs is None:
                return
            self._end_session()  # a captured graph holds the address
            other._end_session()
            larger = max(mine, theirs, key=lambda memory: memory.nbytes)
            for runner in (self, other):
                runner._buffers.execution.share(larger)

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
            closing.callback(self._end_session)

    def __enter__(self) -> "EngineRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _exclusively(self, begun: int = 0) -> Iterator[None]:
        """The context is current and no other thread is here; after an error of the GPU nothing more is done.

        begun: frames that may be under way.
        """
        if not self._lock.acquire(blocking=False):
            raise DeviceError("the engine is busy in another thread; open one runner for each thread")
        try:
            if not self._is_open:
                raise ValueError("the runner is closed")
            if self._failure:
                raise DeviceError(f"the engine failed before: {self._failure}; open it again")
            if len(self._begun) > begun:
                raise ValueError(f"{len(self._begun)} frames are under way, end them first")
            with self._cuda.current():
                yield
        except DeviceError as error:
            self._failure = self._failure or str(error)
            raise
        finally:
            self._lock.release()

    def _check_frames(self, frame: Frame | YuvFrame, out: Frame, shape: tuple[int, int, int]) -> None:
        for each in (frame.pixels if isinstance(frame, YuvFrame) else frame, out):
            if each.dtype != np.uint8:
                raise TypeError(f"an engine takes frames of uint8, got {each.dtype}")
        if not isinstance(frame, YuvFrame):
            check_frame(frame)
        check_frame(out)
        if out.shape != shape:
            raise ValueError(f"out is {out.shape}, expected {shape}")

    def _infer_frame_on_cpu(self, frame: Frame | YuvFrame, padding: Padding, out: Frame) -> None:
        """Convert and add a residual here: the kernels do not."""
        convert = batch_from_yuv if isinstance(frame, YuvFrame) else batch_from_frame
        restored = self.infer(convert(frame, padding))  # type: ignore[arg-type]  # each its own
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
            self._end_session()
            self._session = Session(work, self._buffers, graph=captures)
        return self._session

    def _end_session(self) -> None:
        """Wait for the GPU and free what was captured."""
        session, self._session = self._session, None
        if self._begun:
            self._buffers.downloads.wait()
        if session is not None:
            session.free()

    def _may_capture(self, work: Work) -> bool:
        """TensorRT-RTX compiles kernels for a dynamic shape in the background; a graph would keep the slow ones."""
        identity = self._record.identity
        profile = identity.profiles[self._record.profile_for(work.batch_shape)]
        return self._graphs and (identity.flavour == "tensorrt" or profile.is_fixed)


def _hw(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[2], shape[3]


def device_facts(cuda: Cuda, trt: TensorRT) -> DeviceFacts:
    """What an engine has to fit."""
    return DeviceFacts(trt.flavour, trt.version, cuda.device.sm, cuda.device.name, this_platform())
