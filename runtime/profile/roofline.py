"""The roofline of a device: how fast a layer could run at most, and what holds it back.

S. Williams, A. Waterman, D. Patterson: "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", CACM 2009. A layer that does I operations for each byte it moves can reach no more than
min(peak operations per second, I x bytes per second).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.facts import last_level_cache, usable_cores
from unblur.runtime.profile.layers import Layer
from unblur.runtime.spec import Precision
from unblur.runtime.tensorrt.cuda import Cuda, DeviceMemory, Event, Stream
from unblur.runtime.tensorrt.cuda_driver import multiprocessors_and_mhz

SIDES = (384, 768, 1536)
"""Of square matrices, float32: the largest do not fit into a cache, the smallest do not keep many cores busy."""

_CACHES_COPIED = 4
_SECONDS = 0.25


def gflops() -> float:
    """The fastest product of two float32 matrices, with as many threads as numpy's BLAS has."""
    return max(_product(side) for side in SIDES)


def gbytes_per_s(threads: int) -> float:
    """The fastest copy between arrays that no cache holds, each thread a part; bytes read and bytes written."""
    source = np.ones(_CACHES_COPIED * last_level_cache(), np.uint8)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _fastest(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    return 2 * source.nbytes / seconds / 1e9


def _product(side: int) -> float:
    left, right = np.random.default_rng(side).random((2, side, side), np.float32)
    result = np.empty_like(left)
    return 2 * side**3 / _fastest(lambda: np.matmul(left, right, out=result)) / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    work()
    times: list[float] = []
    while len(times) < 2 or sum(times) < _SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"gflops": gflops(), "gbytes_per_s": gbytes_per_s(int(sys.argv[1]))}))


Bound = Literal["compute", "memory", "overhead"]

_OVERHEAD_SHARE = 0.1
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclass(frozen=True)
class Peaks:
    """What a device can do at most.

    gflops: 10^9 operations a second by precision, "fp32" at least. gbytes_per_s: from and to its memory, both
    counted. source: how these are known.
    """

    gflops: Mapping[str, float]
    gbytes_per_s: float
    source: str


@dataclass(frozen=True)
class Placed:
    """A layer on the roofline.

    intensity: operations a byte. bound: what its roof is there, or "overhead" where it reaches less than a tenth of
    its roof, so that neither explains its time. attained: what it reaches of its roof, 0 to 1.
    """

    layer: Layer
    intensity: float
    bound: Bound
    attained: float


def place(layer: Layer, peaks: Peaks) -> Placed:
    """Put a measured layer on the roofline.

    A precision that has no peak of its own is held against fp32's. What stays in a cache may pass the roof of the
    memory; it attains 1. Raises ValueError if the layer was not measured.
    """
    if layer.ms is None:
        raise ValueError(f"the layer {layer.name} has no time; measure it first")
    compute_ms = layer.flops / peaks.gflops.get(layer.precision, peaks.gflops["fp32"]) / 1e6
    memory_ms = layer.bytes / peaks.gbytes_per_s / 1e6
    least_ms = max(compute_ms, memory_ms)
    attained = least_ms / max(layer.ms, least_ms) if least_ms else 0.0
    roof: Bound = "compute" if compute_ms > memory_ms else "memory"
    return Placed(
        layer=layer,
        intensity=layer.flops / layer.bytes if layer.bytes else 0.0,
        bound="overhead" if attained < _OVERHEAD_SHARE else roof,
        attained=attained,
    )


def measure_peaks(threads: int | None = None) -> Peaks:
    """Measure this CPU, in a process of its own, in less than two seconds on a CPU of 30 GFLOP/s.

    threads: default one for each logical core that this process may use. Raises ValueError for fewer than one,
    DeviceError if the measurement fails.
    """
    threads = usable_cores() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    finished = subprocess.run(
        [sys.executable, "-m", "unblur.runtime.profile.roofline", str(threads)],
        env={**os.environ, **dict.fromkeys(_BLAS_THREADS, str(threads))},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C is for the profile, which goes on to report what it has
    )
    if finished.returncode != 0:
        reason = finished.stderr.strip().rpartition("\n")[2] or f"exit code {finished.returncode}"
        raise DeviceError(f"the peaks of this CPU could not be measured: {reason}; free some memory and try again")
    measured = json.loads(finished.stdout)
    return Peaks(
        gflops={"fp32": measured["gflops"]},
        gbytes_per_s=measured["gbytes_per_s"],
        source=(
            f"measured on this CPU (threads: {threads}): float32 products of matrices up to "
            f"{SIDES[-1]} x {SIDES[-1]} by numpy's BLAS, and copies that no cache holds"
        ),
    )


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
"""SM -> dense operations of a multiprocessor in a clock, from NVIDIA's whitepapers; fp32 without TF32, fp16 with
sums in fp16. docs/device_floors.py makes the table of docs/devices.md from it.
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
