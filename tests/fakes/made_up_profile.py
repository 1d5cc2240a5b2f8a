"""A profile with every part that a profile can have; the latencies are those of a runner by the clock of a test."""

from dataclasses import replace
from functools import cache

from costed_runner import nanoseconds, scripted
from timed_runner import HandClock

from unblur.runtime.machine.telemetry import Spread, TelemetrySummary
from unblur.runtime.profile.document import (
    Against,
    Percentiles,
    Placement,
    Point,
    Profile,
    Roofline,
    SizeSweep,
    Sweeps,
)
from unblur.runtime.profile.int8_advice import Advice
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.measure import Control, Plan, profile_runner
from unblur.runtime.profile.roofline import Peaks
from unblur.runtime.profile.stationarity import Sustained, Window
from unblur.runtime.runner import InferenceTiming

JETSON = TelemetrySummary(
    sensors=("INA3221", "thermal zones"),
    seconds=1800.0,
    samples=3600,
    power_w={"VDD_IN": Spread(11.52, 14.9)},
    joules_per_frame=0.384,
    joules_of=("VDD_IN",),
    temperature_c={"soc0-thermal": Spread(60.0, 70.0)},
    clocks_mhz={"gpu": Spread(612.0, 918.0)},
    load_percent=None,
    throttled_percent=None,
    power_mode="15W",
    jetson_clocks=False,
    not_available={"load_percent": "no sensor reports it"},
)
HOT = Sustained(
    seconds=1800.0,
    windows=tuple(
        Window(36.0 * index, 60, 10.0 if index < 25 else 20.0, {"gpu": 918.0}, {"soc0-thermal": 40.0 + index})
        for index in range(50)
    ),
    slowdown=1.0,
    slowdown_interval=(0.95, 1.05),
    onset_s=900.0,
    verdict="throttled",
    causes=("clock gpu fell from 918 to 306 MHz",),
)
LAYERS = tuple(
    Layer(
        f"step{step}/{stage}/Conv", "Conv", stage, step, ms, 10**8, 10**6, "fp32", ("float32[1]",), ("float32[1]",)
    )
    for step in (1, 2, 3)
    for stage, ms in (("body.0.first", 4.0), ("head", 1.0))
)
PEAKS = Peaks({"fp32": 100.0, "int8": 400.0}, 20.0, "measured here")


@cache
def bare_profile(steps: int = 3, ms: float = 10.0) -> Profile:
    """What is measured of any runner: about `ms` per inference, on the clock of a test."""
    clock = HandClock()
    runner = scripted(clock, (ms + index % 7 / 10 for index in range(100_000)))
    plan = Plan((16, 24), seconds=5, telemetry=False)
    profile = profile_runner(runner, plan, control=Control(clock=nanoseconds(clock)))
    return replace(profile, model="lprn-x.unblur", preset="lprn-x", precision="fp32", steps=steps)


@cache
def full_profile() -> Profile:
    """At all three steps, with everything in it."""
    bare = bare_profile()
    point = Point("16x24", 384, 10, bare.latency_ms, bare.intervals_ms, 90.0)
    larger = replace(point, value="32x48", pixels=1536, latency_ms=Percentiles(40, 41, 42, 43, 40))
    return replace(
        bare,
        timing=InferenceTiming(0.1, 0.0, 9.9, 0.0),
        sweeps=Sweeps(SizeSweep((point, larger), 1.0, (0.9, 1.1), 1.05), (point, larger), (point,)),
        layers=LAYERS,
        roofline=Roofline(PEAKS, tuple(Placement(layer.name, 100.0, "compute", 0.25) for layer in LAYERS)),
        int8_advice=(Advice("head", "it runs in <fp32>", "quantise it", 3, 3.0),),
        against=Against(
            "b.onnx", "int8", 2, "cpu", 20, Percentiles(1, 2, 3, 4, 1), bare.intervals_ms, 0.5, (0.4, 0.6), "faster"
        ),
        telemetry=JETSON,
        sustained=HOT,
    )
