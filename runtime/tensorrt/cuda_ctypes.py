"""CUDA through the driver itself, for machines without pycuda. Names and signatures: cuda.h."""

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.tensorrt.cuda import DeviceMemory, Event, Graph, HostMemory, Stream, no_memory
from unblur.runtime.tensorrt.cuda_driver import CapturedGraph, Device, DriverError, call

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream, on which others may work
_DEVICE_MAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_TIMED = 1  # CU_EVENT_BLOCKING_SYNC
_SLEEP_ON = 1 | 2  # CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING
_OUT_OF_MEMORY = 2


class CtypesDevice:
    """See Cuda. device: as `probe` found it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._context = _primary_context(device.index)

    @contextmanager
    def current(self) -> Iterator[None]:
        call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def alloc(self, nbytes: int) -> DeviceMemory:
        with _memory_errors(self.device, nbytes, "GPU"):
            return _DeviceMemory(nbytes)

    def alloc_host(self, nbytes: int, *, mapped: bool) -> HostMemory:
        with _memory_errors(self.device, nbytes, "page-locked"):
            return _HostMemory(nbytes, mapped)

    def stream(self) -> Stream:
        return _Stream()

    def load(self, ptx: bytes) -> "_Module":
        return _Module(ptx)


class _DeviceMemory:
    def __init__(self, nbytes: int) -> None:
        address = ctypes.c_ulonglong()
        call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
        self.address = address.value

    def free(self) -> None:
        call("cuMemFree_v2", ctypes.c_ulonglong(self.address))


class _HostMemory:
    def __init__(self, nbytes: int, mapped: bool) -> None:
        self._pointer, address = ctypes.c_void_p(), ctypes.c_ulonglong()
        flags = _DEVICE_MAP if mapped else 0
        call("cuMemHostAlloc", ctypes.byref(self._pointer), ctypes.c_size_t(nbytes), flags)
        if mapped:
            call("cuMemHostGetDevicePointer_v2", ctypes.byref(address), self._pointer, 0)
        memory = (ctypes.c_uint8 * nbytes).from_address(self._pointer.value or 0)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)
        self.address = address.value

    def free(self) -> None:
        self.array = np.empty(0, np.uint8)
        call("cuMemFreeHost", self._pointer)


class _Stream:
    def __init__(self) -> None:
        self._stream, self._done = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        call("cuEventCreate", ctypes.byref(self._done), _SLEEP_ON)
        self.handle = self._stream.value or 0

    def copy_in(self, target: DeviceMemory, source: HostMemory, nbytes: int) -> None:
        self._copy("cuMemcpyHtoDAsync_v2", target.address, source.array.ctypes.data, nbytes)

    def copy_out(self, target: HostMemory, source: DeviceMemory, nbytes: int) -> None:
        self._copy("cuMemcpyDtoHAsync_v2", target.array.ctypes.data, source.address, nbytes)

    def copy(self, target: DeviceMemory, source: DeviceMemory, nbytes: int) -> None:
        self._copy("cuMemcpyDtoDAsync_v2", target.address, source.address, nbytes)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return CapturedGraph(self.handle, enqueue)

    def record(self, event: Event | None = None) -> Event:
        recorded = _event_of(event or _Event())
        call("cuEventRecord", recorded.handle, self._stream)
        return recorded

    def wait_for(self, event: Event) -> None:
        call("cuStreamWaitEvent", self._stream, _event_of(event).handle, 0)

    def wait(self) -> None:
        call("cuEventRecord", self._done, self._stream)
        call("cuEventSynchronize", self._done)

    def free(self) -> None:
        call("cuEventDestroy_v2", self._done)
        call("cuStreamDestroy_v2", self._stream)

    def _copy(self, function: str, target: int, source: int, nbytes: int) -> None:
        ends = ctypes.c_ulonglong(target), ctypes.c_ulonglong(source)
        call(function, *ends, ctypes.c_size_t(nbytes), self._stream)


class _Event:
    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        call("cuEventCreate", ctypes.byref(self.handle), _TIMED)

    def wait(self) -> None:
        call("cuEventSynchronize", self.handle)

    def elapsed_ms(self, since: Event) -> float:
        ms = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(ms), _event_of(since).handle, self.handle)
        return ms.value

    def free(self) -> None:
        call("cuEventDestroy_v2", self.handle)


def _event_of(event: Event) -> _Event:
    if not isinstance(event, _Event):
        raise TypeError(f"expected an event of the same device, got {type(event).__name__}")
    return event


class _Module:
    def __init__(self, ptx: bytes) -> None:
        self._module = ctypes.c_void_p()
        call("cuModuleLoadData", ctypes.byref(self._module), ptx + b"\0")
        self._functions: dict[str, ctypes.c_void_p] = {}

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[int | float],
        stream: Stream,
    ) -> None:
        if kernel not in self._functions:
            function = ctypes.c_void_p()
            call("cuModuleGetFunction", ctypes.byref(function), self._module, kernel.encode())
            self._functions[kernel] = function
        kinds = "".join("f" if isinstance(value, float) else "i" for value in arguments[2:])
        members = ctypes.create_string_buffer(struct.pack(kinds, *arguments[2:]))
        values = [*(ctypes.c_ulonglong(int(address)) for address in arguments[:2]), members]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        sizes = (*grid, 1, *block, 1, 0)
        call("cuLaunchKernel", self._functions[kernel], *sizes, ctypes.c_void_p(stream.handle), pointers, None)

    def free(self) -> None:
        call("cuModuleUnload", self._module)


@cache
def _primary_context(index: int) -> ctypes.c_void_p:
    """Retained until the process ends: releasing it earlier would pull it from under TensorRT and ONNX Runtime."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


@contextmanager
def _memory_errors(device: Device, nbytes: int, where: str) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        if error.code == _OUT_OF_MEMORY:
            raise no_memory(device, nbytes, where) from error
        raise
