"""What a GPU can do at most: copies within its memory are measured, its arithmetic is counted.

Counted is multiprocessors x operations a clock x clock. There is no matrix product to measure with that does not
bring a library of a gigabyte.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import TypeVar

from unblur.runtime.engine.cuda import Cuda, DeviceMemory, Event, Stream
from unblur.runtime.engine.libcuda import multiprocessors_and_mhz
from unblur.runtime.errors import DeviceError
from unblur.runtime.profile.roofline import Peaks
from unblur.runtime.runner import Precision

Freed = TypeVar("Freed", DeviceMemory, Stream, Event)

_PASCAL: Mapping[Precision, int] = {"fp32": 256, "fp16": 512}
_TURING: Mapping[Precision, int] = {"fp32": 128, "fp16": 1024, "int8": 2048}
_GEFORCE: Mapping[Precision, int] = {"fp32": 256, "fp16": 1024, "int8": 2048}
_THOR: Mapping[Precision, int] = {"fp32": 256, "fp16": 8192, "int8": 16384}  # 101 until CUDA 13 calls it 110
OPERATIONS_A_CLOCK: Mapping[int, Mapping[Precision, int]] = {
    53: _PASCAL,
    62: _PASCAL,
    72: _TURING,
    75: _TURING,
    80: {"fp32": 128, "fp16": 2048, "int8": 4096},
    86: _GEFORCE,
    87: {"fp32": 256, "fp16": 2048, "int8": 4096},
    89: _GEFORCE,
    90: {"fp32": 256, "fp16": 4096, "int8": 8192},
    101: _THOR,
    110: _THOR,
    120: _GEFORCE,
}
"""SM -> dense operations of a multiprocessor, by NVIDIA's whitepapers; fp32 without TF32, fp16 with sums in fp16.
The same as in `unblur.export.estimate.devices`, which knows devices by name.
"""

_COPIED_BYTES = 256 << 20  # more than the L2 cache of any GPU
_COPIES = 10


def measure_gpu_peaks(cuda: Cuda) -> Peaks:
    """The peaks of a GPU that is at its highest clock; a Jetson is there after `jetson_clocks`.

    Raises DeviceError for a GPU of an architecture that is not in `OPERATIONS_A_CLOCK`, or without the memory for
    two buffers of 256 MiB.
    """
    device = cuda.device
    if device.sm not in OPERATIONS_A_CLOCK:
        known = ", ".join(map(str, OPERATIONS_A_CLOCK))
        raise DeviceError(f"what {device} does in a clock is not known for SM {device.sm}, only for {known}")
    multiprocessors, mhz = multiprocessors_and_mhz(device)
    gbytes_per_s = _gbytes_per_s(cuda)
    return Peaks(
        gflops={
            precision: operations * multiprocessors * mhz / 1000
            for precision, operations in OPERATIONS_A_CLOCK[device.sm].items()
        },
        gbytes_per_s=gbytes_per_s,
        source=(
            f"{device}: copies within its memory, measured; operations counted, not measured: {multiprocessors} "
            f"multiprocessors at {mhz:.0f} MHz with the dense rates that NVIDIA publishes for SM {device.sm}"
        ),
    )


def _gbytes_per_s(cuda: Cuda) -> float:
    """The fastest copy of several, bytes read and bytes written."""
    with cuda.current(), ExitStack() as owned:

        def own(thing: Freed) -> Freed:
            owned.callback(thing.free)
            return thing

        source, target, stream = own(cuda.alloc(_COPIED_BYTES)), own(cuda.alloc(_COPIED_BYTES)), own(cuda.stream())
        marks = [own(stream.record())]
        for _ in range(_COPIES):
            stream.copy(target, source, _COPIED_BYTES)
            marks.append(own(stream.record()))
        stream.wait()
        fastest_ms = min(later.elapsed_ms(earlier) for earlier, later in pairwise(marks))
    return 2 * _COPIED_BYTES / fastest_ms / 1e6
