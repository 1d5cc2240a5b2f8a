"""How long a network would take on a device that is not here: a roofline estimate, as a range.

    time = sum over kernels of max(operations / arithmetic reached, bytes / bandwidth reached) + the cost of a call

At the fast end the runtime does elementwise operations in the kernel before them, and comes near the device's
peaks; at the slow end every operation is a kernel, and it stays further away: `estimate.method` has the factors.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from unblur.export.estimate.devices import PeakRange
from unblur.export.estimate.graph import Network, Operation
from unblur.export.estimate.kernels import Kernel, kernels_of
from unblur.export.estimate.method import Method, Reach
from unblur.runtime.profile.roofline import Bound, Peaks
from unblur.runtime.runner import Precision

_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Span:
    """From the fast to the slow end of an estimate."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The geometric mean: as many times slower than the one as faster than the other."""
        return sqrt(self.low * self.high)


@dataclass(frozen=True)
class Part:
    """What the kernels of one stage cost together, over all steps. share: of the whole. bound: of most of it."""

    stage: str
    kernels: int
    ms: Span
    share: float
    bound: Bound


@dataclass(frozen=True)
class Estimate:
    """One frame in one precision.

    bounds: the shares of the time that arithmetic, memory and calls bound. parts: the dearest first. memory_mib:
    weights and the activations that live at once; the runtime itself is not in it.
    """

    precision: Precision
    ms: Span
    bounds: Mapping[Bound, float]
    parts: tuple[Part, ...]
    memory_mib: float

    @property
    def fps(self) -> Span:
        """Frames per second, from the slow to the fast end."""
        return Span(1000 / self.ms.high, 1000 / self.ms.low)


@dataclass(frozen=True)
class _Cost:
    """Milliseconds of one kernel."""

    stage: str
    work: float
    call: float
    bound: Bound

    @property
    def ms(self) -> float:
        return self.work + self.call


def estimate(
    network: Network, method: Method, peaks: PeakRange, precision: Precision, int8: Collection[str] = ()
) -> Estimate:
    """Estimate one frame. int8: the operations that are INT8 if that is asked for; the others are fp16 then."""
    fast = _costs(network, method.fast, peaks.fast, precision, int8)
    slow = _costs(network, method.slow, peaks.slow, precision, int8)
    floats = "fp16" if precision == "int8" else precision
    stored = network.weights * _BYTES[precision] + network.peak_elements() * _BYTES[floats]
    return Estimate(
        precision=precision,
        ms=Span(_total(fast), _total(slow)),
        bounds=_bounds(fast, slow),
        parts=_parts(fast, slow),
        memory_mib=stored / 2**20,
    )


def _costs(
    network: Network, reach: Reach, peaks: Peaks, precision: Precision, int8: Collection[str]
) -> list[_Cost]:
    kernels = kernels_of(network, fuse=reach.fuses, in_place=reach.in_place)
    return [
        _cost(kernel, _precision_of(kernel.main, precision, int8), network.elements, reach, peaks)
        for kernel in kernels
    ]


def _precision_of(operation: Operation, asked: Precision, int8: Collection[str]) -> Precision:
    return "fp16" if asked == "int8" and operation.name not in int8 else asked


def _cost(kernel: Kernel, precision: Precision, elements: Mapping[str, int], reach: Reach, peaks: Peaks) -> _Cost:
    kind = kernel.main.kind
    activation = reach.int8_bytes if precision == "int8" else _BYTES[precision]
    moved = activation * sum(elements[name] for name in (*kernel.reads, *kernel.writes))
    moved += _BYTES[precision] * kernel.weights
    memory = moved / (peaks.gbytes_per_s * reach.bandwidth[kind]) / 1e6
    arithmetic = 0.0
    if kernel.multiplies:
        reached = peaks.gflops[precision] * reach.units[precision] * reach.arithmetic[kind]
        arithmetic = _tiled_flops(kernel.main, reach.tile[precision]) / reached / 1e6
    return _Cost(
        stage=kernel.main.stage,
        work=max(arithmetic, memory),
        call=reach.call_us / 1000,
        bound="compute" if arithmetic > memory else "memory",
    )


def _tiled_flops(operation: Operation, tile: tuple[int, int]) -> float:
    """With the channels that fill up a tile. Convolutions in groups have kernels of their own, without tiles."""
    flops = float(operation.flops)
    if operation.lanes is None or operation.kind == "grouped":
        return flops
    for channels, multiple in zip(operation.lanes, tile, strict=True):
        flops *= -(-channels // multiple) * multiple / channels
    return flops


def _total(costs: Iterable[_Cost]) -> float:
    return sum(cost.ms for cost in costs)


def _bounds(*ends: Sequence[_Cost]) -> dict[Bound, float]:
    """Shares of the time, the mean over the ends."""
    shares: dict[Bound, float] = {"compute": 0.0, "memory": 0.0, "overhead": 0.0}
    for costs in ends:
        whole = _total(costs) * len(ends)
        for cost in costs:
            shares[cost.bound] += cost.work / whole
            shares["overhead"] += cost.call / whole
    return shares


def _parts(fast: Sequence[_Cost], slow: Sequence[_Cost]) -> tuple[Part, ...]:
    """Both ends by stage; at the fast one, what is done together counts to the stage of its first operation."""
    stages: dict[str, tuple[list[_Cost], list[_Cost]]] = {cost.stage: ([], []) for cost in slow}
    for end, costs in enumerate((fast, slow)):
        for cost in costs:
            stages[cost.stage][end].append(cost)
    whole = Span(_total(fast), _total(slow))
    parts = [_part(stage, *costs, whole) for stage, costs in stages.items()]
    return tuple(sorted(parts, key=lambda part: part.share, reverse=True))


def _part(stage: str, fast: Sequence[_Cost], slow: Sequence[_Cost], whole: Span) -> Part:
    ms = Span(_total(fast), _total(slow))
    bounds = _bounds(*(costs for costs in (fast, slow) if costs))
    return Part(
        stage=stage,
        kernels=len(slow),
        ms=ms,
        share=(ms.low / whole.low + ms.high / whole.high) / 2,
        bound=max(bounds, key=lambda bound: bounds[bound]),
    )
