"""The roofline of a device: how fast a layer could run at most, and what holds it back.

S. Williams, A. Waterman, D. Patterson: "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", CACM 2009. A layer that does I operations for each byte it moves can reach no more than
min(peak operations per second, I x bytes per second).
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unblur.runtime.errors import DeviceError
from unblur.runtime.profile.cpu_peaks import SIDES
from unblur.runtime.profile.layers import Layer

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


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_peaks(threads: int | None = None) -> Peaks:
    """Measure this CPU, in a process of its own, in less than two seconds on a CPU of 30 GFLOP/s.

    threads: default one for each logical core that this process may use. Raises ValueError for fewer than one,
    DeviceError if the measurement fails.
    """
    threads = _usable_cores() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    finished = subprocess.run(
        [sys.executable, "-m", "unblur.runtime.profile.cpu_peaks", str(threads)],
        env={**os.environ, **dict.fromkeys(_BLAS_THREADS, str(threads))},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C is for the profile, which goes on to tell what it has
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
