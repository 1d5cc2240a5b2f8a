"""CUDA through NVIDIA's cuda-python (12.8 and later), for machines without nvcc, which pycuda is built with."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from cuda.bindings import driver
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.tensorrt.cuda import DeviceMemory, Event, Graph, HostMemory, Stream, no_memory
from unblur.runtime.tensorrt.cuda_driver import CapturedGraph, Device


class CudaPythonDevice:
    """See Cuda. device: as `probe` found it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._context = _primary_context(device.index)

    @contextmanager
    def current(self) -> Iterator[None]:
        _call(driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            _call(driver.cuCtxPopCurrent)

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
        self.address = int(_call(driver.cuMemAlloc, nbytes))

    def free(self) -> None:
        _call(driver.cuMemFree, self.address)


class _HostMemory:
    def __init__(self, nbytes: int, mapped: bool) -> None:
        flags = driver.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0
        self._pointer = int(_call(driver.cuMemHostAlloc, nbytes, flags))
        memory = (ctypes.c_uint8 * nbytes).from_address(self._pointer)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)
        self.address = int(_call(driver.cuMemHostGetDevicePointer, self._pointer, 0)) if mapped else 0

    def free(self) -> None:
        self.array = np.empty(0, np.uint8)
        _call(driver.cuMemFreeHost, self._pointer)


class _Stream:
    def __init__(self) -> None:
        self._stream = _call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        flags = driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC | driver.CUevent_flags.CU_EVENT_DISABLE_TIMING
        self._done = _call(driver.cuEventCreate, flags)
        self.handle = int(self._stream)

    def copy_in(self, target: DeviceMemory, source: HostMemory, nbytes: int) -> None:
        _call(driver.cuMemcpyHtoDAsync, target.address, source.array.ctypes.data, nbytes, self._stream)

    def copy_out(self, target: HostMemory, source: DeviceMemory, nbytes: int) -> None:
        _call(driver.cuMemcpyDtoHAsync, target.array.ctypes.data, source.address, nbytes, self._stream)

    def copy(self, target: DeviceMemory, source: DeviceMemory, nbytes: int) -> None:
        _call(driver.cuMemcpyDtoDAsync, target.address, source.address, nbytes, self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return CapturedGraph(self.handle, enqueue)

    def record(self) -> Event:
        return _Event(self._stream)

    def wait(self) -> None:
        _call(driver.cuEventRecord, self._done, self._stream)
        _call(driver.cuEventSynchronize, self._done)

    def free(self) -> None:
        _call(driver.cuEventDestroy, self._done)
        _call(driver.cuStreamDestroy, self._stream)


class _Event:
    """Recorded as it is made."""

    def __init__(self, stream: Any) -> None:
        self._event = _call(driver.cuEventCreate, driver.CUevent_flags.CU_EVENT_DEFAULT)
        _call(driver.cuEventRecord, self._event, stream)

    def elapsed_ms(self, since: Event) -> float:
        if not isinstance(since, _Event):
            raise TypeError(f"expected an event of cuda-python, got {type(since).__name__}")
        return float(_call(driver.cuEventElapsedTime, since._event, self._event))

    def free(self) -> None:
        _call(driver.cuEventDestroy, self._event)


class _Module:
    def __init__(self, ptx: bytes) -> None:
        self._module = _call(driver.cuModuleLoadData, ptx + b"\0")
        self._functions: dict[str, Any] = {}

    def launch(
        self, kernel: str, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[int], stream: Stream
    ) -> None:
        if kernel not in self._functions:
            self._functions[kernel] = _call(driver.cuModuleGetFunction, self._module, kernel.encode())
        types = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * (len(arguments) - 2))
        parameters = (tuple(arguments), types)
        _call(driver.cuLaunchKernel, self._functions[kernel], *grid, 1, *block, 1, 0, stream.handle, parameters, 0)

    def free(self) -> None:
        _call(driver.cuModuleUnload, self._module)


@cache
def _primary_context(index: int) -> Any:
    """Retained until the process ends: releasing it earlier would pull it from under TensorRT and ONNX Runtime."""
    return _call(driver.cuDevicePrimaryCtxRetain, _call(driver.cuDeviceGet, index))


class _DriverError(DeviceError):
    """A call of the driver that failed, with its CUresult."""

    def __init__(self, call: str, result: Any) -> None:
        text = driver.cuGetErrorString(result)[1]
        words = text.decode() if isinstance(text, bytes) else result.name
        super().__init__(f"{call} failed: {words} (CUDA error {int(result)})")
        self.is_out_of_memory = result == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY


def _call(function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
    """What `function` returns beside its CUresult; DeviceError unless that is success."""
    result, *values = function(*arguments)
    if result != driver.CUresult.CUDA_SUCCESS:
        raise _DriverError(function.__name__, result)
    return values[0] if values else None


@contextmanager
def _memory_errors(device: Device, nbytes: int, where: str) -> Iterator[None]:
    try:
        yield
    except _DriverError as error:
        if error.is_out_of_memory:
            raise no_memory(device, nbytes, where) from error
        raise
