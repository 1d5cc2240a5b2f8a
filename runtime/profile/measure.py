"""Profile any runner: `unblur profile` without the command line.

    with open_runner("lprn-s") as runner:
        profile = profile_runner(runner, Plan(size_hw=(360, 640), seconds=5))
    profile.latency_ms.p99, profile.intervals_ms["p99"]

The order: the first inference, more of them until the latency has settled, those that are measured, and then some
whose time is taken apart, which costs time itself.
"""

import itertools
import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from threading import Event

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch, Padding
from unblur.runtime.machine.facts import last_level_cache, read_environment
from unblur.runtime.machine.telemetry import Telemetry, TelemetrySummary
from unblur.runtime.profile.document import Inputs, Percentiles, Profile, WarmUpRun, intervals_of
from unblur.runtime.profile.latency import summarise
from unblur.runtime.profile.stationarity import Sustained, WarmUp, find_throttling, is_stationary
from unblur.runtime.runner import InferenceTiming, Runner, TimedRunner
from unblur.runtime.spec import ModelSpec

Clock = Callable[[], int]
"""Nanoseconds since any moment, never backwards."""

Watch = Callable[[str, float | None], object]
"""Called between two inferences with what is being done and the share of it that is done, None if unknown."""

LEAST_SAMPLES = 10
"""Inferences that are timed at least, however long they take."""


def unwatched(phase: str, done: float | None) -> None:
    """A `Watch` that shows nothing."""


@dataclass(frozen=True)
class Control:
    """What steers a measurement. stop: ends it between two inferences when it is set."""

    stop: Event = field(default_factory=Event)
    watch: Watch = unwatched
    clock: Clock = time.perf_counter_ns


class Stopwatch:
    """Called without arguments, runs one inference and returns its milliseconds; the batches are taken in turn.

    Raises BadInput if the clock goes backwards.
    """

    def __init__(self, runner: Runner, batches: Sequence[Batch], clock: Clock) -> None:
        self._infer = runner.infer
        self._batches = batches
        self._next = 0
        self._clock = clock

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a batch: (N, 3, H, W)."""
        return self._batches[0].shape

    def __call__(self) -> float:
        batch = self._batches[self._next]
        self._next = (self._next + 1) % len(self._batches)
        began = self._clock()
        self._infer(batch)
        elapsed_ms = (self._clock() - began) / 1e6
        if elapsed_ms < 0:
            raise BadInput(
                f"the clock went backwards by {-elapsed_ms:g} ms; expected a monotonic one, as perf_counter"
            )
        return elapsed_ms


@dataclass
class Series:
    """Inferences in order. times_ms: of each. ends_s: when each was done, since the series began."""

    times_ms: "array[float]" = field(default_factory=lambda: array("d"))
    ends_s: "array[float]" = field(default_factory=lambda: array("d"))
    interrupted: bool = False


def warm_up(stopwatch: Stopwatch, limit_s: float, control: Control) -> WarmUp:
    """Run until the latency has settled, for at most so many seconds, or until it is stopped."""
    settling = WarmUp(limit_s=limit_s)
    while not control.stop.is_set() and not settling.add(stopwatch()):
        control.watch("warming up", None)
    return settling


def measure(stopwatch: Stopwatch, seconds: float, control: Control, *, least: int = LEAST_SAMPLES) -> Series:
    """Time inferences for so many seconds, at least `least` of them, or until it is stopped."""
    series, began = Series(), control.clock()
    elapsed_s = 0.0
    while elapsed_s < seconds or len(series.times_ms) < least:
        if control.stop.is_set():
            series.interrupted = True
            break
        series.times_ms.append(stopwatch())
        elapsed_s = (control.clock() - began) / 1e9
        series.ends_s.append(elapsed_s)
        control.watch("measuring", min(elapsed_s / seconds, len(series.times_ms) / least, 1.0))
    return series


FEWEST_BUFFERS = 4

_MOST_PIXELS = 100_000_000


@dataclass(frozen=True)
class RandomBatches:
    """Different batches of one shape, uniform over the value range of the network, the same for the same seed."""

    batches: Sequence[Batch]
    seed: int

    @property
    def size_hw(self) -> tuple[int, int]:
        height, width = self.batches[0].shape[2:]
        return height, width

    @property
    def nbytes(self) -> int:
        return sum(batch.nbytes for batch in self.batches)


def random_batches(spec: ModelSpec, size_hw: tuple[int, int], batch: int, *, seed: int = 0) -> RandomBatches:
    """Batches of `batch` frames of `size_hw`, padded as the runtime pads frames.

    Together they are twice as large as the last-level cache, and at least 4. Raises BadInput if one has more than
    100 million pixels, or if they do not fit the memory.
    """
    height, width = Padding.to_multiple(size_hw, spec.multiple_of).padded_hw
    if batch * height * width > _MOST_PIXELS:
        raise BadInput(
            f"a batch of {batch} frames of {height}x{width} is more than {_MOST_PIXELS:,} pixels; "
            "choose a smaller size or batch"
        )
    shape = (batch, 3, height, width)
    count = max(FEWEST_BUFFERS, math.ceil(2 * last_level_cache() / (4 * math.prod(shape))))
    try:
        batches = np.random.default_rng(seed).random((count, *shape), np.float32)
    except MemoryError as error:
        raise BadInput(
            f"{count} batches of {batch} frames of {height}x{width} do not fit the memory; "
            "choose a smaller size or batch"
        ) from error
    return RandomBatches(list(batches), seed)


SUSTAINED_SAMPLES = 50
"""Inferences that `find_throttling` takes at least."""

_PART_RUNS = 10
_KEPT_TIMES = 4000


@dataclass(frozen=True)
class Plan:
    """What to measure. size_hw: of the frames, padded as the runtime pads frames. seconds: in steady state.
    warm_up_s: to wait at most until the latency has settled. sustained: look for throttling, which takes at least
    50 inferences. telemetry: read the sensors of the machine beside it. seed: of the random frames.

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
        timing=_timing(runner, inputs.batches, plan.seconds / 4, control),
        times_ms=tuple(series.times_ms[::every]),
        times_every=every,
        environment=read_environment(),
        sustained=sustained,
        telemetry=telemetry,
    )


def ready_to_measure(runner: Runner, plan: Plan, control: Control) -> Stopwatch:
    """A stopwatch on a runner that is warmed up."""
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
        raise BadInput("interrupted before the latency settled, so nothing was measured; let it run longer")
    readings = () if sensors is None else sensors.readings
    long_enough = plan.sustained and len(series.times_ms) >= SUSTAINED_SAMPLES  # fewer only if interrupted
    return (
        series,
        None if sensors is None else sensors.summary(frames=len(series.times_ms) * plan.batch),
        find_throttling(series.times_ms, series.ends_s, readings) if long_enough else None,
    )


def _timing(runner: Runner, batches: Sequence[Batch], seconds: float, control: Control) -> InferenceTiming | None:
    """Medians over some inferences, after one that prepares; at least one, however long it takes.

    None if the runner does not report it, or if it was stopped.
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
    return InferenceTiming(**{name: median(getattr(part, name) for part in found) for name in vars(found[0])})
