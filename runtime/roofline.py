"""The roofline of a device: how fast a layer could run at most, and what holds it back.

S. Williams, A. Waterman, D. Patterson: "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", CACM 2009. A layer that does I operations for each byte it moves can reach no more than
min(peak operations per second, I x bytes per second).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unblur.runtime.layers import Layer

Bound = Literal["compute", "memory", "overhead"]

_OVERHEAD_SHARE = 0.1


@dataclass(frozen=True)
class Peaks:
    """What a device can do at most. gflops: by precision, "fp32", "fp16", "int8", in GFLOP/s (or GOP/s).
    gbytes_per_s: to and from its memory. source: how these are known.
    """

    gflops: Mapping[str, float]
    gbytes_per_s: float
    source: str


@dataclass(frozen=True)
class Placed:
    """A layer on the roofline.

    intensity: operations a byte. bound: what its roof is, or "overhead" if it stays so far below that neither
    explains its time. attained: what it reached of its roof, 0 to 1.
    """

    layer: Layer
    intensity: float
    bound: Bound
    attained: float


def place(layer: Layer, peaks: Peaks) -> Placed:
    """Put a measured layer on the roofline.

    A precision without a peak of its own is held against fp32. Raises ValueError if the layer was not measured.
    """
    if layer.ms is None:
        raise ValueError(f"the layer {layer.name} has no time; measure it first")
    compute_ms = layer.flops / peaks.gflops.get(layer.precision, peaks.gflops["fp32"]) / 1e6
    memory_ms = layer.bytes / peaks.gbytes_per_s / 1e6
    attained = min(1.0, max(compute_ms, memory_ms) / layer.ms) if layer.ms > 0 else 1.0
    roof: Bound = "compute" if compute_ms > memory_ms else "memory"
    return Placed(
        layer=layer,
        intensity=layer.flops / layer.bytes if layer.bytes else 0.0,
        bound="overhead" if attained < _OVERHEAD_SHARE else roof,
        attained=attained,
    )
