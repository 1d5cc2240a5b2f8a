"""What an engine runner works with: its memory, the work of one inference, and that work as a CUDA graph.

Two frames are under way at once. On a discrete GPU each has its own stream for every part, tied by events, so that
the copy in of frame n + 1, the network of frame n and the copy out of frame n - 1 run side by side:

    uploads     copy in n+1    | uploaded
    stream      kernel, engine, kernel of n      | computed
    downloads   copy out n-1   | downloaded

An integrated GPU copies nothing: it has one stream, frames lie in mapped memory, which it does not cache, and the
network's own tensors in memory that it does.
"""

import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import Batch, NetworkValues, Padding
from unblur.runtime.tensorrt.cuda import Cuda, DeviceMemory, Event, Graph, HostMemory, Stream
from unblur.runtime.tensorrt.engine_file import EngineRecord
from unblur.runtime.tensorrt.trt import PLANAR_FLOAT, Execution, TensorFormat
from unblur.runtime.yuv import YuvLayout

_PTX = Path(__file__).with_name("kernels.ptx")
_BLOCK = (32, 8)  # columns x rows: a warp reads one row

HEADER_BYTES = 16
"""Before the pixels of a restored frame on the GPU: the first says whether a value was NaN or infinite."""

SLOTS = 2
"""Frames that may be under way at once."""

_log = logging.getLogger(__name__)


class Kernels:
    """The conversions for one network, loaded for one GPU. Addresses are of device or mapped memory."""

    def __init__(self, cuda: Cuda, values: NetworkValues) -> None:
        self._module = cuda.load(_PTX.read_bytes())
        self._to_network = (*values.gain, *values.offset, int(values.swaps))
        self._to_rgb = (*values.inverse_gain, *values.inverse_offset, int(values.swaps))

    def batch_from_frame(
        self,
        frame: int,
        batch: int,
        padding: Padding,
        stream: Stream,
        *,
        end: TensorFormat = PLANAR_FLOAT,
        yuv: YuvLayout | None = None,
    ) -> None:
        """Enqueue uint8 RGB (H, W, 3), or YUV of that layout -> (1, 3, H', W') as the network takes it."""
        arguments: tuple[int | float, ...] = (frame, batch, *_sizes(padding, end), *self._to_network)
        if yuv is not None:
            arguments += (yuv.stride, yuv.chroma_stride, yuv.u, yuv.v, yuv.chroma_step, *yuv.coefficients)
        kernel = "batch_from_frame" if yuv is None else "batch_from_yuv"
        self._module.launch(kernel, _grid(padding.padded_hw), _BLOCK, arguments, stream)

    def frame_from_batch(
        self, batch: int, frame: int, padding: Padding, stream: Stream, *, end: TensorFormat = PLANAR_FLOAT
    ) -> None:
        """Enqueue (1, 3, H', W') -> uint8 RGB (H, W, 3), clipped, rounded, the padding cut off.

        frame: of HEADER_BYTES and the pixels behind them; the first byte becomes 1 if a value is NaN or infinite.
        """
        arguments = (batch, frame, *_sizes(padding, end), *self._to_rgb)
        self._module.launch("frame_from_batch", _grid(padding.size_hw), _BLOCK, arguments, stream)

    def free(self) -> None:
        self._module.free()


def _sizes(padding: Padding, end: TensorFormat) -> tuple[int, ...]:
    return (*padding.size_hw, *padding.padded_hw, int(end.half), end.lanes)


def _grid(threads_hw: tuple[int, int]) -> tuple[int, int]:
    return -(-threads_hw[1] // _BLOCK[0]), -(-threads_hw[0] // _BLOCK[1])


class FrameMemory(Protocol):
    """Memory that the CPU writes and the GPU reads, or the other way round. address: as the GPU sees it.

    array: uint8, the CPU's side.
    """

    @property
    def address(self) -> int: ...

    @property
    def array(self) -> NDArray[np.uint8]: ...

    def upload(self, nbytes: int, stream: Stream) -> None:
        """Enqueue what makes the written bytes visible to the GPU."""
        ...

    def download(self, nbytes: int, stream: Stream) -> None:
        """Enqueue what makes the GPU's bytes readable."""
        ...


class StagedMemory:
    """Page-locked memory and its twin on a discrete GPU, with copies between them."""

    def __init__(self, opening: ExitStack, cuda: Cuda, nbytes: int) -> None:
        self._host = cuda.alloc_host(nbytes, mapped=False)
        opening.callback(self._host.free)
        self._device = _allocated(opening, cuda, nbytes)
        self.address, self.array = self._device.address, self._host.array

    def upload(self, nbytes: int, stream: Stream) -> None:
        stream.copy_in(self._device, self._host, nbytes)

    def download(self, nbytes: int, stream: Stream) -> None:
        stream.copy_out(self._host, self._device, nbytes)


class MappedMemory:
    """Memory that CPU and integrated GPU both see; nothing is copied."""

    def __init__(self, opening: ExitStack, cuda: Cuda, nbytes: int) -> None:
        host = cuda.alloc_host(nbytes, mapped=True)
        opening.callback(host.free)
        self.address, self.array = host.address, host.array

    def upload(self, nbytes: int, stream: Stream) -> None: ...

    def download(self, nbytes: int, stream: Stream) -> None: ...


class Slot:
    """A frame on its way: where it lies before and after, and the events between its parts."""

    def __init__(self, opening: ExitStack, cuda: Cuda, stream: Stream, nbytes: tuple[int, int]) -> None:
        memory = MappedMemory if cuda.device.integrated else StagedMemory
        self.source: FrameMemory = memory(opening, cuda, nbytes[0])
        self.target: FrameMemory = memory(opening, cuda, HEADER_BYTES + nbytes[1])
        self.began, self.uploaded, self.computed, self.downloaded = (_event(opening, stream) for _ in range(4))

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Put the frame where it begins its way."""
        np.copyto(self.source.array[: pixels.size].reshape(pixels.shape), pixels)
        self.target.array[:HEADER_BYTES] = 0

    def read(self, out: NDArray[np.uint8]) -> bool:
        """Fill `out` with the restored frame; False if a value of it was NaN or infinite."""
        np.copyto(out, self.target.array[HEADER_BYTES : HEADER_BYTES + out.size].reshape(out.shape))
        return not self.target.array[0]


class EngineBuffers:
    """All that one runner allocates: for frames of the largest size that its engine takes, and in its own types.

    opening: gets what frees each thing, so that closing it, or a failure in here, leaves nothing behind.
    input, output: the network's own tensors. Page-locked memory for batches is added when the first one comes.
    """

    def __init__(self, opening: ExitStack, cuda: Cuda, execution: Execution, record: EngineRecord) -> None:
        shapes = [profile.maximum for profile in record.identity.profiles]
        self.scale = record.spec.scale
        self.execution = execution
        self.stream = _stream(opening, cuda)
        self.uploads, self.downloads = (
            (self.stream, self.stream)
            if cuda.device.integrated
            else (_stream(opening, cuda), _stream(opening, cuda))
        )
        self.kernels = Kernels(cuda, NetworkValues(record.spec))
        opening.callback(self.kernels.free)
        frame_bytes = max(_frame_bytes((shape[2], shape[3])) for shape in shapes)
        nbytes = (frame_bytes, self.scale**2 * frame_bytes)
        self.slots = tuple(Slot(opening, cuda, self.stream, nbytes) for _ in range(SLOTS))
        ends = [execution.ends_of(profile) for profile in range(len(shapes))]
        self._tensor_bytes = (
            max(end[0].nbytes(shape) for end, shape in zip(ends, shapes, strict=True)),
            max(end[1].nbytes(self._output_shape(shape)) for end, shape in zip(ends, shapes, strict=True)),
        )
        self.input, self.output = (_allocated(opening, cuda, size) for size in self._tensor_bytes)
        self._cuda = cuda
        self._batch_memory: tuple[HostMemory, HostMemory] | None = None
        self._later = ExitStack()
        opening.callback(self._later.close)

    def batch_memory(self) -> tuple[HostMemory, HostMemory]:
        """Page-locked memory for a batch of the engine's type, before and after."""
        if self._batch_memory is None:
            source, target = (self._host_memory(size) for size in self._tensor_bytes)
            self._batch_memory = source, target
        return self._batch_memory

    def _host_memory(self, nbytes: int) -> HostMemory:
        memory = self._cuda.alloc_host(nbytes, mapped=False)
        self._later.callback(memory.free)
        return memory

    def write(self, batch: Batch) -> None:
        """Put a batch, (N, 3, H, W) as the network takes it, where `copy_in` begins."""
        packed = self.execution.ends[0].packed(batch)
        self.batch_memory()[0].array[: packed.nbytes] = packed.reshape(-1).view(np.uint8)

    def read(self, restored: Batch) -> None:
        """Fill `restored`, (N, 3, H, W), with what the network gave."""
        end = self.execution.ends[1]
        memory = self.batch_memory()[1].array
        np.copyto(restored, end.unpacked(memory[: end.nbytes(restored.shape)], restored.shape))

    def copy_in(self, shape: tuple[int, ...]) -> None:
        """Enqueue the copy of a batch of that shape to the network."""
        self.stream.copy_in(self.input, self.batch_memory()[0], self.execution.ends[0].nbytes(shape))

    def copy_out(self, shape: tuple[int, ...]) -> None:
        """Enqueue the copy of what the network gave for a batch of that shape."""
        nbytes = self.execution.ends[1].nbytes(self._output_shape(shape))
        self.stream.copy_out(self.batch_memory()[1], self.output, nbytes)

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:2], self.scale * shape[2], self.scale * shape[3])


@dataclass(frozen=True)
class BatchWork:
    """A batch through the engine, copied in and out. batch_shape: (N, 3, H, W)."""

    batch_shape: tuple[int, ...]

    def enqueue(self, buffers: EngineBuffers, slot: int) -> None:
        buffers.copy_in(self.batch_shape)
        buffers.execution.enqueue(buffers.stream.handle)
        buffers.copy_out(self.batch_shape)


@dataclass(frozen=True)
class EngineWork:
    """The engine alone, on a batch that is there already. batch_shape: (N, 3, H, W)."""

    batch_shape: tuple[int, ...]

    def enqueue(self, buffers: EngineBuffers, slot: int) -> None:
        buffers.execution.enqueue(buffers.stream.handle)


@dataclass(frozen=True)
class FrameWork:
    """A frame on the GPU through a kernel, the engine and a kernel.

    padding: of the image to what the engine is given. yuv: how it lies in memory; None is RGB.
    """

    padding: Padding
    yuv: YuvLayout | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return (1, 3, *self.padding.padded_hw)

    def nbytes(self, scale: int) -> tuple[int, int]:
        """Of the frame before and after."""
        pixels = math.prod(self.padding.size_hw)
        return 3 * pixels if self.yuv is None else self.yuv.nbytes, 3 * scale**2 * pixels

    def enqueue(self, buffers: EngineBuffers, slot: int) -> None:
        stream, kernels, frame = buffers.stream, buffers.kernels, buffers.slots[slot]
        taken, given = buffers.execution.ends
        source, target = frame.source.address, frame.target.address
        kernels.batch_from_frame(source, buffers.input.address, self.padding, stream, end=taken, yuv=self.yuv)
        buffers.execution.enqueue(stream.handle)
        scaled = self.padding.scaled(buffers.scale)
        kernels.frame_from_batch(buffers.output.address, target, scaled, stream, end=given)


Work = BatchWork | EngineWork | FrameWork


class Session:
    """One kind of work of one size: enqueued the first time, captured the second, launched as a graph from then on.

    The first time is not captured: TensorRT may still allocate and compile in it. Each slot has a graph of its own,
    since the addresses of a frame are part of it. One session at a time for an execution: a graph is bound to the
    state of the context that it was captured from.

    graph: whether to capture at all.
    """

    def __init__(self, work: Work, buffers: EngineBuffers, *, graph: bool) -> None:
        self.work = work
        self._buffers = buffers
        self._stream = buffers.stream
        self._graphs: dict[int, Graph] = {}
        self._captures = graph
        self._is_warm = False
        buffers.execution.set_shape(work.batch_shape, self._stream.handle)
        buffers.execution.bind(buffers.input.address, buffers.output.address)

    def run(self) -> None:
        """Do the work and wait for it; its input must be there. DeviceError if the GPU fails."""
        self.prepare()
        self.launch()
        self._stream.wait()

    def begin(self, slot: int) -> None:
        """Enqueue all parts of the frame in a slot; its `downloaded` is the end. Only of a FrameWork."""
        assert isinstance(self.work, FrameWork)  # noqa: S101
        buffers, frame = self._buffers, self._buffers.slots[slot]
        source_bytes, target_bytes = self.work.nbytes(buffers.scale)
        self.prepare(slot)
        buffers.uploads.record(frame.began)
        frame.source.upload(source_bytes, buffers.uploads)
        frame.target.upload(HEADER_BYTES, buffers.uploads)
        _hand_over(buffers.uploads, frame.uploaded, self._stream)
        self.launch(slot)
        _hand_over(self._stream, frame.computed, buffers.downloads)
        frame.target.download(HEADER_BYTES + target_bytes, buffers.downloads)
        buffers.downloads.record(frame.downloaded)

    def prepare(self, slot: int = 0) -> None:
        """Capture the work, once it has been done before."""
        if self._is_warm and self._captures and slot not in self._graphs:
            self._capture(slot)

    def launch(self, slot: int = 0) -> None:
        """Put the work on the stream."""
        if slot in self._graphs:
            self._graphs[slot].launch()
        else:
            self.work.enqueue(self._buffers, slot)
        self._is_warm = True

    def free(self) -> None:
        """Wait for the GPU, then free the graphs."""
        with ExitStack() as freeing:
            for graph in self._graphs.values():
                freeing.callback(graph.free)
            self._stream.wait()

    def _capture(self, slot: int) -> None:
        try:
            self._graphs[slot] = self._stream.capture(lambda: self.work.enqueue(self._buffers, slot))
        except DeviceError as error:  # not every engine can be captured; enqueued, it may still run
            self._captures = False
            _log.warning("the engine cannot be captured as a CUDA graph, so every frame is enqueued: %s", error)


def _hand_over(giving: Stream, event: Event, taking: Stream) -> None:
    """What comes next on `taking` begins when what is on `giving` is done."""
    giving.record(event)
    if taking is not giving:
        taking.wait_for(event)


def _frame_bytes(size_hw: tuple[int, int]) -> int:
    """Of the largest frame of that size, whatever it is stored as."""
    return max(3 * math.prod(size_hw), YuvLayout.of("NV12", size_hw).nbytes, YuvLayout.of("I420", size_hw).nbytes)


def _stream(opening: ExitStack, cuda: Cuda) -> Stream:
    stream = cuda.stream()
    opening.callback(stream.free)
    return stream


def _event(opening: ExitStack, stream: Stream) -> Event:
    event = stream.record()
    opening.callback(event.free)
    return event


def _allocated(opening: ExitStack, cuda: Cuda, nbytes: int) -> DeviceMemory:
    """New memory on the GPU, which closing `opening` frees."""
    memory = cuda.alloc(nbytes)
    opening.callback(memory.free)
    return memory
