"""A GPU in memory, whole at the seam of cuda.py: addresses, streams that work later, events, graphs, kernels.

It does what a driver does and refuses what a driver refuses: work on a stream happens when it is waited for, an
address must lie in memory that is allocated, and every call needs the context current in its thread. `live` holds
what is not freed yet, so that a leak is a non-empty set. Its clock goes by the work it does: `COST_MS`, `COPY_MS`.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import Padding, batch_from_frame, frame_from_batch
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_buffers import HEADER_BYTES

ORIN = Device(0, "Orin", 87, integrated=True, memory_bytes=8 << 30, driver_cuda=(12, 6))
ADA = Device(0, "NVIDIA RTX 4090", 89, integrated=False, memory_bytes=24 << 30, driver_cuda=(13, 0))

COST_MS = {"copy in": 0.5, "engine": 2.0, "copy out": 0.25}
"""Of the parts of an inference."""

COPY_MS = 0.125
"""Of a copy within the GPU's memory; all else takes no time."""

Work = Callable[[], None]
Channels = NDArray[np.float32]


class FakeCuda:
    """See Cuda. capacity: bytes that can be allocated. lost: set to a reason, it fails every call from then on."""

    def __init__(self, device: Device = ADA, capacity: int = 1 << 30) -> None:
        self.device = device
        self.capacity = capacity
        self.lost = ""
        self.live: set[object] = set()
        self.streams: dict[int, FakeStream] = {}
        self.done: list[str] = []  # what the GPU has done, in order
        self.now_ms = 0.0
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
        self.now_ms += {**COST_MS, "copy": COPY_MS}.get(name, 0.0)

    def at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """The memory at an address, as a kernel sees it; what is not allocated is an illegal access."""
        memory = self._memory.get(address)
        if memory is None or memory not in self.live or nbytes > memory.array.nbytes:
            raise DeviceError("an illegal memory access was encountered (CUDA error 700)")
        return memory.array[:nbytes]

    def _allocated(self, memory: "_Memory") -> "_Memory":
        self.check()
        used = sum(thing.array.nbytes for thing in self.live if isinstance(thing, _Memory))
        if used + memory.array.nbytes > self.capacity:
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


@dataclass(eq=False)
class FakeStream:
    cuda: FakeCuda
    handle: int
    queue: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None

    def put(self, work: Work) -> None:
        """Enqueue or, while capturing, record."""
        self.cuda.check()
        (self.queue if self.captured is None else self.captured).append(work)

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

    def record(self) -> "_Event":
        assert self.captured is None
        event = self.cuda.own(_Event(self.cuda))
        self.put(event.happen)
        return event

    def wait(self) -> None:
        self.cuda.check()
        if self.captured is not None:
            raise DeviceError("operation not permitted when stream is capturing (CUDA error 900)")
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def free(self) -> None:
        self.cuda.disown(self)
        del self.cuda.streams[self.handle]

    def _copy(self, name: str, target: _Memory, source: _Memory, nbytes: int) -> None:
        target.array[:nbytes] = source.array[:nbytes]
        self.cuda.did(name)


@dataclass(eq=False)
class _Event:
    cuda: FakeCuda
    at_ms: float | None = None

    def happen(self) -> None:
        self.at_ms = self.cuda.now_ms

    def elapsed_ms(self, since: "_Event") -> float:
        if self.at_ms is None or since.at_ms is None:
            raise DeviceError("device not ready (CUDA error 600)")
        return self.at_ms - since.at_ms

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
    """The two kernels, computed by frames.py, which they are held against bit for bit in test_kernels.py."""

    cuda: FakeCuda

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[int | float],
        stream: FakeStream,
    ) -> None:
        source, target, height, width, padded_height, padded_width = map(int, arguments[:6])
        padding = Padding((height, width), (padded_height, padded_width))
        threads = (grid[1] * block[1], grid[0] * block[0])
        wanted = padding.padded_hw if kernel == "batch_from_frame" else padding.size_hw
        assert threads[0] >= wanted[0]
        assert threads[1] >= wanted[1]
        stream.put(lambda: getattr(self, f"_{kernel}")(source, target, padding, *_channels(arguments)))

    def free(self) -> None:
        self.cuda.disown(self)

    def _batch_from_frame(
        self, source: int, target: int, padding: Padding, gain: Channels, offset: Channels, order: list[int]
    ) -> None:
        height, width = padding.size_hw
        frame = self.cuda.at(source, 3 * height * width).reshape(height, width, 3)
        self._batch(target, padding)[:] = batch_from_frame(frame, padding)[:, order] * gain + offset
        self.cuda.did("batch from frame")

    def _frame_from_batch(
        self, source: int, target: int, padding: Padding, gain: Channels, offset: Channels, order: list[int]
    ) -> None:
        height, width = padding.size_hw
        restored = self.cuda.at(target, HEADER_BYTES + 3 * height * width)
        rgb = (self._batch(source, padding) * gain + offset)[:, order]
        restored[0] |= not np.isfinite(rgb[..., :height, :width]).all()
        with np.errstate(invalid="ignore"):
            frame_from_batch(rgb, padding, out=restored[HEADER_BYTES:].reshape(height, width, 3))
        self.cuda.did("frame from batch")

    def _batch(self, address: int, padding: Padding) -> NDArray[np.float32]:
        height, width = padding.padded_hw
        return self.cuda.at(address, 12 * height * width).view(np.float32).reshape(1, 3, height, width)


def _channels(arguments: Sequence[int | float]) -> tuple[Channels, Channels, list[int]]:
    """Gain and offset of the network's channels, and which channel of RGB each is."""
    gain, offset = (np.array(arguments[i : i + 3], np.float32).reshape(1, 3, 1, 1) for i in (6, 9))
    return gain, offset, [2, 1, 0] if arguments[12] else [0, 1, 2]
