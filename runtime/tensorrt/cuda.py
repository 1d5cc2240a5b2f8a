"""The seam to the GPU: memory, streams, events, graphs and kernels, as much as executing an engine takes.

    cuda = open_cuda()
    with cuda.current():
        memory = cuda.alloc(1 << 20)

`open_cuda` puts pycuda or the driver itself behind it, the tests a GPU in memory. All failures are DeviceErrors
that name the call. Whoever makes an object frees it: the garbage collector's order is not the driver's.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.tensorrt.cuda_driver import Device


class DeviceMemory(Protocol):
    """Memory of the GPU, aligned for any use. address: as kernels and TensorRT take it."""

    @property
    def address(self) -> int: ...

    def free(self) -> None: ...


class HostMemory(Protocol):
    """Page-locked memory of the CPU. array: uint8 (n,). address: where the GPU sees it if mapped, else 0."""

    @property
    def array(self) -> NDArray[np.uint8]: ...

    @property
    def address(self) -> int: ...

    def free(self) -> None: ...


class Event(Protocol):
    """A mark on a stream; the GPU notes the time at which it comes to it."""

    def wait(self) -> None:
        """Sleep until the GPU has come to it; an error of the work before it is raised here."""
        ...

    def elapsed_ms(self, since: "Event") -> float:
        """Time from the mark `since` to this one; both must be done. Exact to about 0.5 us."""
        ...

    def free(self) -> None: ...


class Graph(Protocol):
    """Captured work; `launch` puts it on the stream it was captured from."""

    def launch(self) -> None: ...

    def free(self) -> None: ...


class Stream(Protocol):
    """A queue of work for the GPU, not the default one. handle: the CUstream, as TensorRT takes it."""

    @property
    def handle(self) -> int: ...

    def copy_in(self, target: DeviceMemory, source: HostMemory, nbytes: int) -> None:
        """Enqueue a copy to the GPU of the first `nbytes`."""
        ...

    def copy_out(self, target: HostMemory, source: DeviceMemory, nbytes: int) -> None:
        """Enqueue a copy from the GPU of the first `nbytes`."""
        ...

    def copy(self, target: DeviceMemory, source: DeviceMemory, nbytes: int) -> None:
        """Enqueue a copy within the GPU's memory of the first `nbytes`."""
        ...

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` puts on this stream instead of doing it."""
        ...

    def record(self, event: Event | None = None) -> Event:
        """Enqueue a mark, `event` again or a new one. Not while capturing."""
        ...

    def wait_for(self, event: Event) -> None:
        """Let what is enqueued from now on begin when the GPU has come to where `event` was last recorded."""
        ...

    def wait(self) -> None:
        """Sleep until all work is done; an error of that work is raised here. It does not keep the CPU busy."""
        ...

    def free(self) -> None: ...


class Module(Protocol):
    """Compiled kernels."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[int | float],
        stream: Stream,
    ) -> None:
        """Enqueue a kernel. grid, block: columns x rows.

        arguments: two addresses, then the members of a struct, 32-bit integers and floats.
        """
        ...

    def free(self) -> None: ...


class Cuda(Protocol):
    """One GPU through one binding. Every call but `device` and `current` is made inside `current`."""

    @property
    def device(self) -> Device: ...

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU's primary context, which TensorRT and ONNX Runtime use too, this thread's for a while."""
        ...

    def alloc(self, nbytes: int) -> DeviceMemory: ...

    def alloc_host(self, nbytes: int, *, mapped: bool) -> HostMemory: ...

    def stream(self) -> Stream: ...

    def load(self, ptx: bytes) -> Module:
        """Compile PTX for this GPU. The driver does it and keeps the result for the next process."""
        ...


def no_memory(device: Device, nbytes: int, where: str) -> DeviceError:
    """The error of an allocation that failed; where: "GPU" or "page-locked"."""
    return DeviceError(
        f"{device} has no {nbytes / 2**20:.0f} MiB of {where} memory left; close other programs, "
        "or build the engine for a smaller size"
    )
