"""What an engine runner works with: its memory, the work of one inference, and that work as a CUDA graph."""

import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import NetworkValues, Padding
from unblur.runtime.tensorrt.cuda import Cuda, Graph, Stream
from unblur.runtime.tensorrt.engine_file import EngineRecord
from unblur.runtime.tensorrt.trt import Execution

_PTX = Path(__file__).with_name("kernels.ptx")
_BLOCK = (32, 8)  # columns x rows: a warp reads one row


class Kernels:
    """The two conversions for one network, loaded for one GPU. Addresses are of device or mapped memory."""

    def __init__(self, cuda: Cuda, values: NetworkValues) -> None:
        self._module = cuda.load(_PTX.read_bytes())
        self._to_network = (*values.gain, *values.offset, int(values.swaps))
        self._to_rgb = (*values.inverse_gain, *values.inverse_offset, int(values.swaps))

    def batch_from_frame(self, frame: int, batch: int, padding: Padding, stream: Stream) -> None:
        """Enqueue uint8 RGB (H, W, 3) -> float32 (1, 3, H', W') as the network takes it, edge pixels repeated."""
        sizes = (*padding.size_hw, *padding.padded_hw)
        arguments = (frame, batch, *sizes, *self._to_network)
        self._module.launch("batch_from_frame", _grid(padding.padded_hw), _BLOCK, arguments, stream)

    def frame_from_batch(self, batch: int, frame: int, padding: Padding, stream: Stream) -> None:
        """Enqueue float32 (1, 3, H', W') -> uint8 RGB (H, W, 3), clipped, rounded, the padding cut off.

        frame: of HEADER_BYTES and the pixels behind them; the first byte becomes 1 if a value is NaN or infinite.
        """
        sizes = (*padding.size_hw, *padding.padded_hw)
        arguments = (batch, frame, *sizes, *self._to_rgb)
        self._module.launch("frame_from_batch", _grid(padding.size_hw), _BLOCK, arguments, stream)

    def free(self) -> None:
        self._module.free()


def _grid(threads_hw: tuple[int, int]) -> tuple[int, int]:
    return -(-threads_hw[1] // _BLOCK[0]), -(-threads_hw[0] // _BLOCK[1])


HEADER_BYTES = 16
"""Before the pixels of a restored frame on the GPU: the first says whether a value was NaN or infinite."""

FLOAT_BYTES = 4

_log = logging.getLogger(__name__)


class HostDeviceBuffer(Protocol):
    """Memory that the CPU writes and the GPU reads, or the other way round. address: as the GPU sees it."""

    @property
    def address(self) -> int: ...

    def write(self, array: NDArray[np.generic]) -> None:
        """Put an array at its beginning."""
        ...

    def read(self, array: NDArray[np.generic], offset: int = 0) -> None:
        """Fill an array with what begins at byte `offset`."""
        ...

    def upload(self, nbytes: int, stream: Stream) -> None:
        """Enqueue what makes the written bytes visible to the GPU."""
        ...

    def download(self, nbytes: int, stream: Stream) -> None:
        """Enqueue what makes the GPU's bytes readable."""
        ...


class StagedBuffer:
    """Page-locked memory and its twin on a discrete GPU, with copies between them."""

    def __init__(self, opening: ExitStack, cuda: Cuda, nbytes: int) -> None:
        self._host = cuda.alloc_host(nbytes, mapped=False)
        opening.callback(self._host.free)
        self._device = cuda.alloc(nbytes)
        opening.callback(self._device.free)
        self.address = self._device.address

    def write(self, array: NDArray[np.generic]) -> None:
        np.copyto(_viewed(self._host.array, array), array)

    def read(self, array: NDArray[np.generic], offset: int = 0) -> None:
        np.copyto(array, _viewed(self._host.array[offset:], array))

    def upload(self, nbytes: int, stream: Stream) -> None:
        stream.copy_in(self._device, self._host, nbytes)

    def download(self, nbytes: int, stream: Stream) -> None:
        stream.copy_out(self._host, self._device, nbytes)


class MappedBuffer:
    """Memory that CPU and integrated GPU both see; nothing is copied."""

    def __init__(self, opening: ExitStack, cuda: Cuda, nbytes: int) -> None:
        self._host = cuda.alloc_host(nbytes, mapped=True)
        opening.callback(self._host.free)
        self.address = self._host.address

    def write(self, array: NDArray[np.generic]) -> None:
        np.copyto(_viewed(self._host.array, array), array)

    def read(self, array: NDArray[np.generic], offset: int = 0) -> None:
        np.copyto(array, _viewed(self._host.array[offset:], array))

    def upload(self, nbytes: int, stream: Stream) -> None: ...

    def download(self, nbytes: int, stream: Stream) -> None: ...


class EngineBuffers:
    """All that one runner allocates, for the largest size that its engine takes.

    opening: gets what frees each thing, so that closing it, or a failure in here, leaves nothing behind.
    source, target: input and output as the caller has them, float or uint8. input, output: addresses of float
    batches on the GPU.
    """

    def __init__(self, opening: ExitStack, cuda: Cuda, execution: Execution, record: EngineRecord) -> None:
        buffer = MappedBuffer if cuda.device.integrated else StagedBuffer
        largest = max(math.prod(profile.maximum) for profile in record.identity.profiles)
        nbytes = FLOAT_BYTES * largest
        self.scale = record.spec.scale
        self.execution = execution
        self.stream = cuda.stream()
        opening.callback(self.stream.free)
        self.kernels = Kernels(cuda, NetworkValues(record.spec))
        opening.callback(self.kernels.free)
        self.source: HostDeviceBuffer = buffer(opening, cuda, nbytes)
        self.target: HostDeviceBuffer = buffer(opening, cuda, HEADER_BYTES + self.scale**2 * nbytes)
        self.input = _allocate(opening, cuda, nbytes)
        self.output = _allocate(opening, cuda, self.scale**2 * nbytes)


@dataclass(frozen=True)
class BatchWork:
    """A batch of floats through the engine. batch_shape: (N, 3, H, W)."""

    batch_shape: tuple[int, ...]

    def bind(self, buffers: EngineBuffers) -> None:
        buffers.execution.bind(buffers.source.address, buffers.target.address)

    def enqueue(self, buffers: EngineBuffers) -> None:
        nbytes = FLOAT_BYTES * math.prod(self.batch_shape)
        buffers.source.upload(nbytes, buffers.stream)
        buffers.execution.enqueue(buffers.stream.handle)
        buffers.target.download(buffers.scale**2 * nbytes, buffers.stream)


@dataclass(frozen=True)
class EngineWork:
    """The engine alone, on a batch that is there already. batch_shape: (N, 3, H, W)."""

    batch_shape: tuple[int, ...]

    def bind(self, buffers: EngineBuffers) -> None:
        buffers.execution.bind(buffers.source.address, buffers.target.address)

    def enqueue(self, buffers: EngineBuffers) -> None:
        buffers.execution.enqueue(buffers.stream.handle)


@dataclass(frozen=True)
class FrameWork:
    """An image through a kernel, the engine and a kernel. padding: of the image to what the engine is given."""

    padding: Padding

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return (1, 3, *self.padding.padded_hw)

    def bind(self, buffers: EngineBuffers) -> None:
        buffers.execution.bind(buffers.input, buffers.output)

    def enqueue(self, buffers: EngineBuffers) -> None:
        stream, kernels, scale = buffers.stream, buffers.kernels, buffers.scale
        nbytes = 3 * math.prod(self.padding.size_hw)
        scaled = self.padding.scaled(scale)
        buffers.source.upload(nbytes, stream)
        buffers.target.upload(HEADER_BYTES, stream)
        kernels.batch_from_frame(buffers.source.address, buffers.input, self.padding, stream)
        buffers.execution.enqueue(stream.handle)
        kernels.frame_from_batch(buffers.output, buffers.target.address, scaled, stream)
        buffers.target.download(HEADER_BYTES + scale**2 * nbytes, stream)


Work = BatchWork | EngineWork | FrameWork


class Session:
    """One kind of work of one size: enqueued the first time, captured the second, launched as a graph from then on.

    The first time is not captured: TensorRT may still allocate and compile in it. One session at a time for an
    execution: a graph is bound to the state of the context that it was captured from.

    graph: whether to capture at all.
    """

    def __init__(self, work: Work, buffers: EngineBuffers, *, graph: bool) -> None:
        self.work = work
        self._buffers = buffers
        self._stream = buffers.stream
        self._graph: Graph | None = None
        self._captures = graph
        self._is_warm = False
        buffers.execution.set_shape(work.batch_shape, self._stream.handle)
        work.bind(buffers)

    def run(self) -> None:
        """Do the work and wait for it; `source` must be written before. DeviceError if the GPU fails."""
        self.prepare()
        self.launch()
        self._stream.wait()

    def prepare(self) -> None:
        """Capture the work, once it has been done before."""
        if self._is_warm and self._captures:
            self._capture()

    def launch(self) -> None:
        """Put the work on the stream."""
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self._is_warm = True

    def free(self) -> None:
        """Wait for the GPU, then free the graph."""
        try:
            self._stream.wait()
        finally:
            if self._graph is not None:
                self._graph.free()

    def _capture(self) -> None:
        self._captures = False
        try:
            self._graph = self._stream.capture(self._enqueue)
        except DeviceError as error:  # not every engine can be captured; enqueued, it may still run
            _log.warning("the engine cannot be captured as a CUDA graph, so every frame is enqueued: %s", error)

    def _enqueue(self) -> None:
        self.work.enqueue(self._buffers)


def _allocate(opening: ExitStack, cuda: Cuda, nbytes: int) -> int:
    """The address of new memory on the GPU, which closing `opening` frees."""
    memory = cuda.alloc(nbytes)
    opening.callback(memory.free)
    return memory.address


def _viewed(memory: NDArray[np.uint8], like: NDArray[np.generic]) -> NDArray[np.generic]:
    """The beginning of `memory` as an array of the same type and shape."""
    view: NDArray[np.generic] = memory[: like.nbytes].view(like.dtype).reshape(like.shape)
    return view
