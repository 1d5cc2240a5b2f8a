"""A GPU in memory, whole at the seam of cuda.py: addresses, streams that work later, events, graphs, kernels.

It does what a driver does and refuses what a driver refuses: an address must lie in memory that is allocated, and
every call needs the context current in its thread. Work on a stream happens as late as possible, when it is waited
for, or with `seed` at any moment that streams and events allow: a missing wait shows as a wrong result. `live`
holds what is not freed yet, so that a leak is a non-empty set. Each stream has its clock, which goes by the work it
does (`COST_MS`, `COPY_MS`) and by what it waits for; the CPU's own work takes no time.
"""

import itertools
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import Padding
from unblur.runtime.frames import batch_from_frame as batch_from
from unblur.runtime.frames import frame_from_batch as frame_from
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_buffers import HEADER_BYTES
from unblur.runtime.tensorrt.trt import TensorFormat
from unblur.runtime.yuv import Matrix, YuvFrame, YuvLayout
from unblur.runtime.yuv import batch_from_yuv as batch_from_yuv_frame

ORIN = Device(0, "Orin", 87, integrated=True, memory_bytes=8 << 30, driver_cuda=(12, 6))
ADA = Device(0, "NVIDIA RTX 4090", 89, integrated=False, memory_bytes=24 << 30, driver_cuda=(13, 0))

COST_MS = {"copy in": 0.5, "engine": 2.0, "copy out": 0.25}
"""Of the parts of an inference."""

COPY_MS = 0.125
"""Of a copy within the GPU's memory; all else takes no time."""

Work = Callable[[], None]
Channels = NDArray[np.float32]


class FakeCuda:
    """See Cuda. capacity: bytes that can be allocated. lost: set to a reason, it fails every call from then on.

    seed: of when work is done.
    """

    def __init__(self, device: Device = ADA, capacity: int = 1 << 30, seed: int | None = None) -> None:
        self.device = device
        self.capacity = capacity
        self.lost = ""
        self.live: set[object] = set()
        self.streams: dict[int, FakeStream] = {}
        self.done: list[str] = []  # what the GPU has done, in order
        self.now_ms = 0.0  # of the CPU
        self.running: FakeStream | None = None
        self._random = None if seed is None else random.Random(seed)
        self._memory: dict[int, _Memory] = {}
        self._numbers = itertools.count(1)
        self._thread = threading.local()

    @contextmanager
    def current(self) -> Iterator[None]:
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def alloc(self, nbytes: int) -> "_Memory":
        return self._allocated(_Memory(self, nbytes, on_gpu=True, visible=True))

    def alloc_host(self, nbytes: int, *, mapped: bool) -> "_Memory":
        return self._allocated(_Memory(self, nbytes, on_gpu=False, visible=mapped))

    def stream(self) -> "FakeStream":
        self.check()
        stream = FakeStream(self, next(self._numbers))
        self.streams[stream.handle] = stream
        return self.own(stream)

    def load(self, ptx: bytes) -> "_Module":
        self.check()
        if b".entry batch_from_frame" not in ptx:
            raise DeviceError("cuModuleLoadData failed: invalid PTX")
        return self.own(_Module(self))

    def check(self) -> None:
        """What every call of a driver begins with."""
        if getattr(self._thread, "depth", 0) == 0:
            raise DeviceError("invalid device context (CUDA error 201)")
        if self.lost:
            raise DeviceError(self.lost)

    def own(self, thing):  # type: ignore[no-untyped-def]
        self.live.add(thing)
        return thing

    def disown(self, thing: object) -> None:
        self.check()
        if thing not in self.live:
            raise DeviceError("freed twice")
        self.live.remove(thing)

    def did(self, name: str) -> None:
        """Note that a work is done, and let its time pass."""
        self.done.append(name)
        assert self.running is not None
        self.running.now_ms += {**COST_MS, "copy": COPY_MS}.get(name, 0.0)

    def reach(self, moment: "Moment") -> None:
        """Work off a stream until it has come there."""
        while not moment.done:
            moment.stream.step()

    def run_at_random(self) -> None:
        """With a seed, do some of what may be done now."""
        while self._random is not None and self._random.random() < 0.5:
            ready = [stream for stream in self.streams.values() if stream.may_go_on]
            if not ready:
                return
            self._random.choice(ready).step()

    def at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """The memory at an address, as a kernel sees it; what is not allocated is an illegal access."""
        memory = self._memory.get(address)
        if memory is None or memory not in self.live or nbytes > memory.array.nbytes:
            raise DeviceError("an illegal memory access was encountered (CUDA error 700)")
        return memory.array[:nbytes]

    @property
    def used(self) -> int:
        """Bytes of all memory that is allocated."""
        return sum(thing.array.nbytes for thing in self.live if isinstance(thing, _Memory))

    def _allocated(self, memory: "_Memory") -> "_Memory":
        self.check()
        if self.used + memory.array.nbytes > self.capacity:
            raise DeviceError("no memory left")
        if memory.address:
            self._memory[memory.address] = memory
        return self.own(memory)


class _Memory:
    def __init__(self, cuda: FakeCuda, nbytes: int, *, on_gpu: bool, visible: bool) -> None:
        self._cuda = cuda
        self.on_gpu = on_gpu
        self.array = np.full(nbytes, 0xA5, np.uint8)  # never zero by luck
        self.address = self.array.ctypes.data if visible else 0

    def free(self) -> None:
        self._cuda.disown(self)
        self.array[:] = 0xDD  # who still reads it sees it


class FakeStream:
    """A queue of (moment of the CPU at which it was enqueued, condition, work)."""

    def __init__(self, cuda: FakeCuda, handle: int) -> None:
        self.cuda = cuda
        self.handle = handle
        self.now_ms = 0.0
        self.queue: deque[tuple[float, Moment | None, Work]] = deque()
        self.captured: list[Work] | None = None

    def put(self, work: Work, after: "Moment | None" = None) -> None:
        """Enqueue or, while capturing, record."""
        self.cuda.check()
        if self.captured is None:
            self.queue.append((self.cuda.now_ms, after, work))
            self.cuda.run_at_random()
        else:
            assert after is None
            self.captured.append(work)

    @property
    def may_go_on(self) -> bool:
        """Whether the next work needs nothing of another stream."""
        return bool(self.queue) and (self.queue[0][1] is None or self.queue[0][1].done)

    def step(self) -> None:
        """Do the next work, and before it what it waits for."""
        enqueued_ms, after, work = self.queue.popleft()
        if after is not None:
            self.cuda.reach(after)
            enqueued_ms = max(enqueued_ms, after.at_ms)
        self.now_ms = max(self.now_ms, enqueued_ms)
        self.cuda.running = self
        work()

    def copy_in(self, target: _Memory, source: _Memory, nbytes: int) -> None:
        assert target.on_gpu
        assert not source.on_gpu
        self.put(lambda: self._copy("copy in", target, source, nbytes))

    def copy_out(self, target: _Memory, source: _Memory, nbytes: int) -> None:
        assert source.on_gpu
        assert not target.on_gpu
        self.put(lambda: self._copy("copy out", target, source, nbytes))

    def copy(self, target: _Memory, source: _Memory, nbytes: int) -> None:
        assert target.on_gpu
        assert source.on_gpu
        self.put(lambda: self._copy("copy", target, source, nbytes))

    def capture(self, enqueue: Work) -> "_Graph":
        self.captured = []
        try:
            enqueue()
            return self.cuda.own(_Graph(self, self.captured))
        finally:
            self.captured = None

    def record(self, event: "_Event | None" = None) -> "_Event":
        assert self.captured is None
        event = event or self.cuda.own(_Event(self.cuda))
        event.moment = moment = Moment(self)
        self.put(moment.happen)
        return event

    def wait_for(self, event: "_Event") -> None:
        assert event.moment is not None
        self.put(lambda: None, after=event.moment)

    def wait(self) -> None:
        self.cuda.check()
        if self.captured is not None:
            raise DeviceError("operation not permitted when stream is capturing (CUDA error 900)")
        while self.queue:
            self.step()
        self.cuda.now_ms = max(self.cuda.now_ms, self.now_ms)

    def free(self) -> None:
        self.cuda.disown(self)
        del self.cuda.streams[self.handle]

    def _copy(self, name: str, target: _Memory, source: _Memory, nbytes: int) -> None:
        target.array[:nbytes] = source.array[:nbytes]
        self.cuda.did(name)


@dataclass(eq=False)
class Moment:
    """When a stream came to where an event was recorded."""

    stream: FakeStream
    done: bool = False
    at_ms: float = 0.0

    def happen(self) -> None:
        self.done, self.at_ms = True, self.stream.now_ms


@dataclass(eq=False)
class _Event:
    cuda: FakeCuda
    moment: Moment | None = None

    def wait(self) -> None:
        self.cuda.check()
        assert self.moment is not None
        self.cuda.run_at_random()
        self.cuda.reach(self.moment)
        self.cuda.now_ms = max(self.cuda.now_ms, self.moment.at_ms)

    def elapsed_ms(self, since: "_Event") -> float:
        self.cuda.check()
        if not (self.moment and since.moment and self.moment.done and since.moment.done):
            raise DeviceError("device not ready (CUDA error 600)")
        return self.moment.at_ms - since.moment.at_ms

    def free(self) -> None:
        self.cuda.disown(self)


@dataclass(eq=False)
class _Graph:
    stream: FakeStream
    works: list[Work]

    def launch(self) -> None:
        self.stream.cuda.check()
        assert self in self.stream.cuda.live
        self.stream.put(lambda: self.stream.cuda.did("graph"))
        for work in self.works:
            self.stream.put(work)

    def free(self) -> None:
        self.stream.cuda.disown(self)
        self.works = []


@dataclass(eq=False)
class _Module:
    """The kernels, computed by frames.py and yuv.py, which they are held against bit for bit in test_kernels.py."""

    cuda: FakeCuda

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[int | float],
        stream: FakeStream,
    ) -> None:
        source, target, height, width, padded_height, padded_width, half, lanes = map(int, arguments[:8])
        padding = Padding((height, width), (padded_height, padded_width))
        threads = (grid[1] * block[1], grid[0] * block[0])
        wanted = padding.size_hw if kernel == "frame_from_batch" else padding.padded_hw
        assert threads[0] >= wanted[0]
        assert threads[1] >= wanted[1]
        end = TensorFormat(bool(half), lanes)
        gain, offset = (np.array(arguments[i : i + 3], np.float32).reshape(1, 3, 1, 1) for i in (8, 11))
        order = [2, 1, 0] if arguments[14] else [0, 1, 2]

        def batch_from_frame() -> None:
            frame = self.cuda.at(source, 3 * height * width).reshape(height, width, 3)
            put(batch_from(frame, padding))

        def batch_from_yuv() -> None:
            stride, chroma_stride, u, v, step = map(int, arguments[15:20])
            layout = next(
                layout
                for matrix in get_args(Matrix)
                for full in (False, True)
                if (layout := YuvLayout((height, width), stride, chroma_stride, u, v, step, matrix, full))
                and layout.coefficients == tuple(arguments[20:])
            )
            put(batch_from_yuv_frame(YuvFrame(self.cuda.at(source, layout.nbytes), layout), padding))

        def put(rgb: Channels) -> None:
            packed = end.packed(rgb[:, order] * gain + offset)
            self.cuda.at(target, packed.nbytes)[:] = packed.reshape(-1).view(np.uint8)
            self.cuda.did("batch from frame")

        def frame_from_batch() -> None:
            shape = (1, 3, padded_height, padded_width)
            restored = self.cuda.at(target, HEADER_BYTES + 3 * height * width)
            values = end.unpacked(self.cuda.at(source, end.nbytes(shape)), shape)
            rgb = (values.astype(np.float32) * gain + offset)[:, order]
            restored[0] |= not np.isfinite(rgb[..., :height, :width]).all()
            with np.errstate(invalid="ignore"):
                frame_from(rgb, padding, out=restored[HEADER_BYTES:].reshape(height, width, 3))
            self.cuda.did("frame from batch")

        kernels = {"batch_from_frame": batch_from_frame, "batch_from_yuv": batch_from_yuv}
        stream.put(kernels.get(kernel, frame_from_batch))

    def free(self) -> None:
        self.cuda.disown(self)
