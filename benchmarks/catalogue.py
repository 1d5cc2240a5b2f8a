"""The benchmarks there are, what each is called with, and how long that takes on two quiet cores.

A new one gets a line here; it takes --json and tells a `Report`, see `benchmarks.parts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.parts import NotMeasured

_ESTIMATED = ("lprn-n", "lprn-s", "msrm-dffm", "pix2pix", "deblurgan")

_DATA = "../shared/data"


@dataclass(frozen=True)
class Plan:
    """One way to call a benchmark. seconds: it takes, about."""

    seconds: float
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """name: of its module. what: it measures. usual: how it is called. quick: on less; None leaves it out."""

    name: str
    what: str
    usual: Plan
    quick: Plan | None = None

    def plan(self, *, quick: bool) -> Plan | None:
        """None if there is no quick form."""
        return self.quick if quick else self.usual


def _plan(seconds: float, options: str = "") -> Plan:
    return Plan(seconds, tuple(options.split()))


CATALOGUE = (
    Benchmark("machine", "how fast the machine itself is now", _plan(10), _plan(10)),
    Benchmark(
        "run_overhead",
        "frame rate of `unblur run` over a bare loop of session.run",
        _plan(150, "--frames 12 --repeats 4"),
        _plan(30, "--model lprn-n --height 360 --width 640 --frames 10 --repeats 3"),
    ),
    Benchmark(
        "profile_overhead",
        "what `unblur profile` adds to the time it measures",
        _plan(50),
        _plan(20, "--seconds 0.5 --rounds 6"),
    ),
    Benchmark(
        "run_memory",
        "peak memory of `unblur run`: long clips, 4K",
        _plan(110, "--model lprn-n --short 50 --long 200 --frames-4k 4"),
        _plan(30, "--model lprn-n --short 10 --long 30 --frames-4k 1"),
    ),
    Benchmark(
        "live",
        "latency of the live loop, its overhead, frames in time on a device that slows down",
        _plan(150, "--seconds 45"),
        _plan(40, "--seconds 10"),
    ),
    Benchmark(
        "preview_cost",
        "what four viewers of the preview cost",
        _plan(130),
        _plan(40, "--seconds 4 --repeats 3"),
    ),
    Benchmark("soak", "a camera that dies every minute: memory, comebacks", _plan(190, "--minutes 3")),
    Benchmark(
        "int8",
        "INT8 against ONNX Runtime's: loss, share, memory, time",
        _plan(
            180,
            f"--pictures {_DATA}/stills_calibration --pairs {_DATA}/gopro_test --rivals ort:percentile:tensorrt",
        ),
    ),
    Benchmark(
        "engine_build",
        "seconds and megabytes of TensorRT-RTX engines",
        _plan(90),
        _plan(20, "lprn-n --size 96x160"),
    ),
    Benchmark(
        "systems",
        "time and memory of a frame, with random weights",
        _plan(90, "--size 180x320 --systems lprn-n --systems lprn-s --systems msrm-dffm --systems pix2pix"),
        _plan(30, "--size 180x320 --systems lprn-n"),
    ),
    Benchmark(
        "verdicts",
        "how often a comparison of two models is right",
        _plan(90, "--trials 40"),
        _plan(15, "--trials 5"),
    ),
    Benchmark(
        "estimate",
        "estimated over measured time; without options it takes every preset",
        _plan(120, " ".join(f"--presets {name}" for name in _ESTIMATED)),
        _plan(40, "--presets lprn-n --presets lprn-s"),
    ),
)


def chosen(names: Sequence[str]) -> tuple[Benchmark, ...]:
    """Those of that name, in the order of the catalogue; all for none. NotMeasured for a name that is not there."""
    known = {benchmark.name: benchmark for benchmark in CATALOGUE}
    for name in names:
        if name not in known:
            raise NotMeasured(f"there is no benchmark {name}; there are {', '.join(known)}")
    return tuple(benchmark for benchmark in CATALOGUE if not names or benchmark.name in names)
