"""Profile any runner: `unblur profile` without the command line.

    with open_runner("lprn-s") as runner:
        profile = profile_runner(runner, Plan(size_hw=(360, 640), seconds=5))
    profile.latency_ms.p99, profile.intervals_ms["p99"]

The order: the first inference, more of them until the latency has settled, those that are measured, and then some
whose time is taken apart, which costs time itself.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from unblur.runtime.environment import read_environment
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch
from unblur.runtime.profile.document import Inputs, Percentiles, Profile, WarmUpRun, intervals_of
from unblur.runtime.profile.inputs import random_batches
from unblur.runtime.profile.latency import summarise
from unblur.runtime.profile.loop import LEAST_SAMPLES, Control, Series, Stopwatch, measure, warm_up
from unblur.runtime.profile.stationarity import is_stationary
from unblur.runtime.profile.throttling import Sustained, find_throttling
from unblur.runtime.runner import Parts, Runner, TimedRunner
from unblur.runtime.telemetry.sampler import Telemetry, TelemetrySummary

SUSTAINED_SAMPLES = 50
"""Inferences that `find_throttling` takes at least."""

_PART_RUNS = 10
_KEPT_TIMES = 4000


@dataclass(frozen=True)
class Plan:
    """What to measure. size_hw: of the pictures, padded as the runtime pads frames. seconds: in steady state.
    warm_up_s: to wait at most until the latency has settled. sustained: look for throttling, which takes at least
    50 inferences. telemetry: read the sensors of the machine beside it. seed: of the random pictures.

    Raises BadInput unless there is time to measure.
    """

    size_hw: tuple[int, int] = (720, 1280)
    batch: int = 1
    seconds: float = 10.0
    warm_up_s: float = 30.0
    sustained: bool = False
    telemetry: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise BadInput(f"the time to measure is {self.seconds:g} s, expected more than 0")
        if not self.warm_up_s >= 0:
            raise BadInput(f"the longest warm-up is {self.warm_up_s:g} s, expected 0 or more")


def profile_runner(
    runner: Runner,
    plan: Plan = Plan(),
    *,
    model: str | None = None,
    cold_ms: Mapping[str, float | None] | None = None,
    threads: int | None = None,
    control: Control | None = None,
) -> Profile:
    """Measure a runner that has not run yet.

    model: what the document calls it; default the preset. cold_ms: what opening it took, "import" and "open".
    threads: that it was opened with, for the document.
    Raises what `infer` raises, and BadInput if the clock goes backwards or if it was stopped before the first
    inference that counts.
    """
    control = control or Control()
    inputs = random_batches(runner.spec, plan.size_hw, plan.batch, seed=plan.seed)
    stopwatch = Stopwatch(runner, inputs.batches, control.clock)
    first_ms = stopwatch()
    warmup = warm_up(stopwatch, plan.warm_up_s, control)
    series, telemetry, sustained = _measure(stopwatch, plan, control)
    latency = summarise(series.times_ms)
    every = math.ceil(latency.samples / _KEPT_TIMES)
    return Profile(
        model=model or runner.spec.preset,
        preset=runner.spec.preset,
        precision=runner.precision,
        steps=runner.spec.steps,
        device=runner.device,
        size=plan.size_hw,
        padded_size=inputs.size_hw,
        batch=plan.batch,
        threads=threads,
        inputs=Inputs(len(inputs.batches), inputs.nbytes, plan.seed),
        latency_ms=Percentiles.of(latency),
        intervals_ms=intervals_of(latency),
        cv=latency.cv,
        fps=1000 * plan.batch / latency.mean,
        samples=latency.samples,
        stationary=is_stationary(series.times_ms),
        interrupted=series.interrupted,
        warmup=WarmUpRun(warmup.samples, warmup.seconds, warmup.settled),
        cold_ms={"import": None, "open": None, **(cold_ms or {}), "first": first_ms},
        parts_ms=_parts(runner, inputs.batches, plan.seconds / 4, control),
        times_ms=tuple(series.times_ms[::every]),
        times_every=every,
        environment=read_environment(),
        sustained=sustained,
        telemetry=telemetry,
    )


def ready_to_measure(runner: Runner, plan: Plan, control: Control) -> Stopwatch:
    """A stopwatch on a runner that has run until its latency settled."""
    inputs = random_batches(runner.spec, plan.size_hw, plan.batch, seed=plan.seed)
    stopwatch = Stopwatch(runner, inputs.batches, control.clock)
    stopwatch()
    warm_up(stopwatch, plan.warm_up_s, control)
    return stopwatch


def _measure(
    stopwatch: Stopwatch, plan: Plan, control: Control
) -> tuple[Series, TelemetrySummary | None, Sustained | None]:
    """The steady state, with the sensors read beside it."""
    least = SUSTAINED_SAMPLES if plan.sustained else LEAST_SAMPLES
    with ExitStack() as opening:
        sensors = opening.enter_context(Telemetry()) if plan.telemetry else None
        series = measure(stopwatch, plan.seconds, control, least=least)
    if not series.times_ms:
        raise BadInput(
            "it was stopped before the latency had settled, so there is nothing to tell; let it run longer"
        )
    readings = () if sensors is None else sensors.readings
    judged = plan.sustained and len(series.times_ms) >= SUSTAINED_SAMPLES  # less only if it was interrupted
    return (
        series,
        None if sensors is None else sensors.summary(frames=len(series.times_ms) * plan.batch),
        find_throttling(series.times_ms, series.ends_s, readings) if judged else None,
    )


def _parts(runner: Runner, batches: Sequence[Batch], seconds: float, control: Control) -> Parts | None:
    """Medians over some inferences, after one that prepares; at least one, however long it takes.

    None if the runner cannot tell them, or if it was stopped.
    """
    if not isinstance(runner, TimedRunner) or control.stop.is_set():
        return None
    runner.timed_infer(batches[0])
    found, began = [], control.clock()
    for batch in itertools.islice(itertools.cycle(batches), _PART_RUNS):
        found.append(runner.timed_infer(batch)[1])
        control.watch("taking the time apart", len(found) / _PART_RUNS)
        if control.stop.is_set() or control.clock() - began > seconds * 1e9:
            break
    return Parts(**{name: median(getattr(part, name) for part in found) for name in vars(found[0])})
