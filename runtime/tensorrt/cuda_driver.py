"""The CUDA driver through ctypes: is there a GPU, and stream capture.

TensorRT and pycuda may crash the process where there is no driver, so `probe` asks the driver first. pycuda, at
least up to 2026.1, has no stream capture and no graphs. Numbers and signatures: cuda.h.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from unblur.runtime.errors import DeviceError

OLDEST_CUDA = (11, 4)
"""Of the driver; JetPack 5. Graphs are instantiated by a call that came with it."""

_NO_DEVICE, _DRIVER_TOO_OLD = 100, 35
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute
_MULTIPROCESSORS, _CLOCK_KHZ = 16, 13
_CAPTURE_THREAD_LOCAL = 1  # other threads may go on allocating while one captures
_NAME_BYTES = 256


@dataclass(frozen=True)
class Device:
    """A GPU, by what its driver says.

    sm: 10 * major + minor of the compute capability, 87 for Orin. integrated: it shares the CPU's memory, as on a
    Jetson. memory_bytes: in all. driver_cuda: the latest CUDA version that the driver knows, (12, 6).
    """

    index: int
    name: str
    sm: int
    integrated: bool
    memory_bytes: int
    driver_cuda: tuple[int, int]

    def __str__(self) -> str:
        return f"cuda:{self.index} {self.name}"


def probe(index: int = 0) -> Device:
    """What the driver says about a GPU. Nothing is allocated and no context is made.

    Raises DeviceError if there is no driver, if it is too old or cannot start, or if it has no such GPU.
    """
    version = start_driver()
    count, device, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    call("cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= index < count.value:
        raise DeviceError(f"there is no GPU {index}, the driver has {count.value}; see CUDA_VISIBLE_DEVICES")
    call("cuDeviceGet", ctypes.byref(device), index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    call("cuDeviceGetName", name, _NAME_BYTES, device)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Device(
        index=index,
        name=name.value.decode(errors="replace"),
        sm=10 * _attribute(_MAJOR, device) + _attribute(_MINOR, device),
        integrated=bool(_attribute(_INTEGRATED, device)),
        memory_bytes=memory.value,
        driver_cuda=version,
    )


def multiprocessors_and_mhz(device: Device) -> tuple[int, float]:
    """How many streaming multiprocessors a GPU has, and their highest clock."""
    handle = ctypes.c_int()
    call("cuDeviceGet", ctypes.byref(handle), device.index)
    return _attribute(_MULTIPROCESSORS, handle), _attribute(_CLOCK_KHZ, handle) / 1000


def start_driver() -> tuple[int, int]:
    """Initialise the driver; returns the latest CUDA version that it knows. DeviceError if that cannot be."""
    number = ctypes.c_int()
    code = int(_library().cuInit(0))
    if code == _NO_DEVICE:
        raise DeviceError("the CUDA driver sees no GPU; check CUDA_VISIBLE_DEVICES, or in a container --gpus all")
    if code != _DRIVER_TOO_OLD:
        _check("cuInit", code)
    call("cuDriverGetVersion", ctypes.byref(number))
    version = (number.value // 1000, number.value % 1000 // 10)
    if code == _DRIVER_TOO_OLD or version < OLDEST_CUDA:
        found, expected = (f"{major}.{minor}" for major, minor in (version, OLDEST_CUDA))
        raise DeviceError(f"the CUDA driver is too old: it knows CUDA {found}, expected {expected}; update it")
    return version


def call(name: str, *arguments: object) -> None:
    """Call a function of the driver; DeviceError with the driver's words unless it succeeds."""
    _check(name, int(getattr(_library(), name)(*arguments)))


class DriverError(DeviceError):
    """A call of the driver that failed. code: its CUresult."""

    def __init__(self, name: str, code: int) -> None:
        text = ctypes.c_char_p()
        _library().cuGetErrorString(code, ctypes.byref(text))
        words = (text.value or b"unknown error").decode()
        super().__init__(f"{name} failed: {words} (CUDA error {code})")
        self.code = code


class CapturedGraph:
    """Work that was captured from a stream, to be launched as one; free it before the stream.

    stream: handle of a stream that is not the default one. enqueue: puts the work on it; waiting for the GPU or
    allocating in it makes the capture fail. Raises what `enqueue` raises, DeviceError if it cannot be captured.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _CAPTURE_THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:  # the stream must leave capture, whatever happened
            _library().cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
            if graph:
                _library().cuGraphDestroy(graph)
            raise
        call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            flags = ctypes.c_ulonglong(0)
            call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, flags)
        finally:
            call("cuGraphDestroy", graph)
        self._stream = stream

    def launch(self) -> None:
        call("cuGraphLaunch", self._executable, ctypes.c_void_p(self._stream))

    def free(self) -> None:
        call("cuGraphExecDestroy", self._executable)


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceError(
            "there is no CUDA driver (libcuda.so.1); install NVIDIA's, or in a container use --runtime nvidia"
        ) from error


def _attribute(number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _check(name: str, code: int) -> None:
    if code != 0:
        raise DriverError(name, code)
