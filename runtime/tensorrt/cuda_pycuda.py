"""CUDA through pycuda (2021.1 and later), the default.

pycuda keeps its own stack of contexts and aborts the process at exit unless it is empty, and it frees an object
only in a thread where the object's context is current. Both are met by making the context current for the length
of a call and no longer. Its graphs come from the driver itself: pycuda has none.
"""

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pycuda.driver as driver
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.tensorrt.cuda import DeviceMemory, Event, Graph, HostMemory, Stream, no_memory
from unblur.runtime.tensorrt.cuda_driver import CapturedGraph, Device

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream, on which others may work


class PycudaDevice:
    """See Cuda. device: as `probe` found it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._context = _primary_context(device.index)

    @contextmanager
    def current(self) -> Iterator[None]:
        with _device_errors():
            self._context.push()
        try:
            yield
        finally:
            driver.Context.pop()

    def alloc(self, nbytes: int) -> DeviceMemory:
        try:
            with _device_errors():
                return _DeviceMemory(nbytes)
        except driver.MemoryError as error:
            raise no_memory(self.device, nbytes, "GPU") from error

    def alloc_host(self, nbytes: int, *, mapped: bool) -> HostMemory:
        try:
            with _device_errors():
                return _HostMemory(nbytes, mapped)
        except driver.MemoryError as error:
            raise no_memory(self.device, nbytes, "page-locked") from error

    def stream(self) -> Stream:
        with _device_errors():
            return _Stream()

    def load(self, ptx: bytes) -> "_Module":
        with _device_errors():
            return _Module(ptx)


class _DeviceMemory:
    def __init__(self, nbytes: int) -> None:
        self._allocation = driver.mem_alloc(nbytes)
        self.address = int(self._allocation)

    def free(self) -> None:
        with _device_errors():
            self._allocation.free()


class _HostMemory:
    def __init__(self, nbytes: int, mapped: bool) -> None:
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        self.array: NDArray[np.uint8] = driver.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
        self._allocation = self.array.base
        self.address = int(self._allocation.get_device_pointer()) if mapped else 0

    def free(self) -> None:
        self.array = np.empty(0, np.uint8)
        with _device_errors():
            self._allocation.free()


class _Stream:
    def __init__(self) -> None:
        self._stream: Any = driver.Stream(_NON_BLOCKING)
        flags = driver.event_flags.BLOCKING_SYNC | driver.event_flags.DISABLE_TIMING
        self._done: Any = driver.Event(flags)
        self.handle = int(self._stream.handle)

    def copy_in(self, target: DeviceMemory, source: HostMemory, nbytes: int) -> None:
        with _device_errors():
            driver.memcpy_htod_async(target.address, source.array[:nbytes], self._stream)

    def copy_out(self, target: HostMemory, source: DeviceMemory, nbytes: int) -> None:
        with _device_errors():
            driver.memcpy_dtoh_async(target.array[:nbytes], source.address, self._stream)

    def copy(self, target: DeviceMemory, source: DeviceMemory, nbytes: int) -> None:
        with _device_errors():
            driver.memcpy_dtod_async(target.address, source.address, nbytes, self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return CapturedGraph(self.handle, enqueue)

    def record(self, event: Event | None = None) -> Event:
        with _device_errors():
            recorded = _event_of(event or _Event())
            recorded.event.record(self._stream)
            return recorded

    def wait_for(self, event: Event) -> None:
        with _device_errors():
            self._stream.wait_for_event(_event_of(event).event)

    def wait(self) -> None:
        with _device_errors():
            self._done.record(self._stream)
            self._done.synchronize()

    def launch(
        self, function: Any, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[int | float]
    ) -> None:
        with _device_errors():
            function.prepared_async_call((*grid, 1), (*block, 1), self._stream, *arguments)

    def free(self) -> None:
        # They are destroyed with the last reference to them, here and now: nothing else holds one.
        self._done = self._stream = None


class _Event:
    def __init__(self) -> None:
        self.event: Any = driver.Event(driver.event_flags.BLOCKING_SYNC)

    def wait(self) -> None:
        with _device_errors():
            self.event.synchronize()

    def elapsed_ms(self, since: Event) -> float:
        with _device_errors():
            return float(self.event.time_since(_event_of(since).event))

    def free(self) -> None:
        self.event = None


def _event_of(event: Event) -> _Event:
    if not isinstance(event, _Event):
        raise TypeError(f"expected an event of the same device, got {type(event).__name__}")
    return event


class _Module:
    def __init__(self, ptx: bytes) -> None:
        self._module: Any = driver.module_from_buffer(ptx + b"\0")
        self._functions: dict[str, Any] = {}

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[int | float],
        stream: Stream,
    ) -> None:
        if not isinstance(stream, _Stream):
            raise TypeError(f"expected a stream of pycuda, got {type(stream).__name__}")
        if kernel not in self._functions:
            types = "".join("f" if isinstance(value, float) else "i" for value in arguments[2:])
            with _device_errors():
                self._functions[kernel] = self._module.get_function(kernel).prepare("PP" + types)
        stream.launch(self._functions[kernel], grid, block, arguments)

    def free(self) -> None:
        self._functions.clear()
        self._module = None


@cache
def _primary_context(index: int) -> Any:
    """Retained until the process ends: releasing it earlier would pull it from under TensorRT and ONNX Runtime."""
    with _device_errors():
        driver.init()
        context = driver.Device(index).retain_primary_context()
    atexit.register(context.detach)
    return context


@contextmanager
def _device_errors() -> Iterator[None]:
    """Turn pycuda's errors into DeviceErrors; a lack of memory passes, since only the caller knows how much."""
    try:
        yield
    except driver.MemoryError:
        raise
    except driver.Error as error:
        raise DeviceError(str(error)) from error
