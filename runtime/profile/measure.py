"""Profile any runner: `unblur profile` without the command line.

    with open_runner("lprn-s") as runner:
        profile = profile_runner(runner, Plan(size_hw=(360, 640), seconds=5))
    profile.latency_ms.p99, profile.intervals_ms["p99"]

The order: the first inference, more of them until the latency has settled, those that are measured, and then some
whose time is taken apart, which costs time itself. Frames take the very path of `unblur run`: uint8 in, conversion,
network, conversion, uint8 out; batches of floats go to the network alone.
"""

import itertools
import math
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from threading import Event
from typing import Any

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.machine.facts import last_level_cache, read_environment
from unblur.runtime.machine.telemetry import Telemetry, TelemetrySummary
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.profile.document import Inputs, Percentiles, Profile, WarmUpRun, intervals_of
from unblur.runtime.profile.latency import summarise
from unblur.runtime.profile.stationarity import Sustained, WarmUp, find_throttling, is_stationary
from unblur.runtime.runner import FrameRunner, InferenceTiming, Runner, TimedFrameRunner, TimedRunner
from unblur.runtime.spec import ModelSpec

Clock = Callable[[], int]
"""Nanoseconds since any moment, never backwards."""

Input = Frame | Batch
"""A uint8 frame (H, W, 3), or a float32 batch (N, 3, H, W)."""

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
    """Called without arguments, runs one inference and returns its milliseconds; the inputs are taken in turn.

    run: restores one input. Raises BadInput if the clock goes backwards.
    """

    def __init__(self, run: Callable[[Any], object], inputs: Sequence[Input], clock: Clock) -> None:
        self._run = run
        self._inputs = inputs
        self._next = 0
        self._clock = clock

    def __call__(self) -> float:
        values = self._inputs[self._next]
        self._next = (self._next + 1) % len(self._inputs)
        began = self._clock()
        self._run(values)
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


def random_frames(size_hw: tuple[int, int], *, seed: int = 0) -> Sequence[Frame]:
    """Different uint8 frames (H, W, 3), the same for the same seed.

    Together they are twice as large as the last-level cache, and at least 4. Raises BadInput if one has more than
    100 million pixels, or if they do not fit the memory.
    """
    shape = (*size_hw, 3)
    count = _count(size_hw, 1, math.prod(shape))
    with _fitting_memory(count, size_hw):
        return list(np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8))


def random_batches(spec: ModelSpec, size_hw: tuple[int, int], batch: int, *, seed: int = 0) -> Sequence[Batch]:
    """Different float32 batches of `batch` frames, uniform in [0, 1], padded as the runtime pads frames.

    As many as `random_frames` gives, with its errors.
    """
    padded_hw = Padding.to_multiple(size_hw, spec.multiple_of).padded_hw
    shape = (batch, 3, *padded_hw)
    count = _count(padded_hw, batch, 4 * math.prod(shape))
    with _fitting_memory(count, padded_hw):
        return list(np.random.default_rng(seed).random((count, *shape), np.float32))


def _count(size_hw: tuple[int, int], batch: int, nbytes: int) -> int:
    """How many inputs of so many bytes the cache does not hold together."""
    if batch * math.prod(size_hw) > _MOST_PIXELS:
        raise BadInput(
            f"a batch of {batch} frames of {size_hw[0]}x{size_hw[1]} is more than {_MOST_PIXELS:,} pixels; "
            "choose a smaller size or batch"
        )
    return max(FEWEST_BUFFERS, math.ceil(2 * last_level_cache() / nbytes))


@contextmanager
def _fitting_memory(count: int, size_hw: tuple[int, int]) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise BadInput(
            f"{count} inputs of {size_hw[0]}x{size_hw[1]} do not fit the memory; choose a smaller size or batch"
        ) from error


SUSTAINED_SAMPLES = 50
"""Inferences that `find_throttling` takes at least."""

_PART_RUNS = 10
_KEPT_TIMES = 4000


@dataclass(frozen=True)
class Plan:
    """What to measure. size_hw: of the frames. seconds: in steady state.
    tensor: batches of floats through `Runner.infer` instead of uint8 frames through the path of `unblur run`.
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
    tensor: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise BadInput(f"the time to measure is {self.seconds:g} s, expected more than 0")
        if not self.warm_up_s >= 0:
            raise BadInput(f"the longest warm-up is {self.warm_up_s:g} s, expected 0 or more")
        if self.batch > 1 and not self.tensor:
            raise BadInput(f"frames run one at a time; a batch of {self.batch} needs --tensor")


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
    inputs = _inputs(runner, plan)
    stopwatch = Stopwatch(_run(runner, plan), inputs, control.clock)
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
        padded_size=Padding.to_multiple(plan.size_hw, runner.spec.multiple_of).padded_hw,
        tensor=plan.tensor,
        batch=plan.batch,
        threads=threads,
        inputs=Inputs(len(inputs), sum(each.nbytes for each in inputs), plan.seed),
        latency_ms=Percentiles.of(latency),
        intervals_ms=intervals_of(latency),
        cv=latency.cv,
        fps=1000 * plan.batch / latency.mean,
        samples=latency.samples,
        stationary=is_stationary(series.times_ms),
        interrupted=series.interrupted,
        warmup=WarmUpRun(warmup.samples, warmup.seconds, warmup.settled),
        cold_ms={"import": None, "open": None, **(cold_ms or {}), "first": first_ms},
        timing=_timing(runner, inputs, plan, control),
        times_ms=tuple(series.times_ms[::every]),
        times_every=every,
        environment=read_environment(),
        sustained=sustained,
        telemetry=telemetry,
    )


def ready_to_measure(runner: Runner, plan: Plan, control: Control) -> Stopwatch:
    """A stopwatch on a runner that is warmed up."""
    stopwatch = Stopwatch(_run(runner, plan), _inputs(runner, plan), control.clock)
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


def _inputs(runner: Runner, plan: Plan) -> Sequence[Input]:
    if plan.tensor:
        return random_batches(runner.spec, plan.size_hw, plan.batch, seed=plan.seed)
    return random_frames(plan.size_hw, seed=plan.seed)


def _run(runner: Runner, plan: Plan) -> Callable[[Any], object]:
    """What restores one input: `Runner.infer`, or what `unblur run` calls for a frame."""
    if plan.tensor:
        return runner.infer
    return partial(Deblurrer(runner), out=_restored_like(runner, plan))


def _restored_like(runner: Runner, plan: Plan) -> Frame:
    """Room for a restored frame."""
    return np.empty((*runner.spec.output_hw(plan.size_hw), 3), np.uint8)


def _timing(runner: Runner, inputs: Sequence[Input], plan: Plan, control: Control) -> InferenceTiming | None:
    """Medians over some inferences, after one that prepares; at least one, however long it takes.

    None if the runner does not report them, or if interrupted.
    """
    timed = _timed(runner, plan, control.clock)
    if timed is None or control.stop.is_set():
        return None
    timed(inputs[0])
    found, began = [], control.clock()
    for values in itertools.islice(itertools.cycle(inputs), _PART_RUNS):
        found.append(timed(values))
        control.watch("taking the time apart", len(found) / _PART_RUNS)
        if control.stop.is_set() or control.clock() - began > plan.seconds / 4 * 1e9:
            break
    return InferenceTiming(**{name: median(getattr(part, name) for part in found) for name in vars(found[0])})


def _timed(runner: Runner, plan: Plan, clock: Clock) -> Callable[[Any], InferenceTiming] | None:
    """What restores one input and returns where the time went; None if the runner cannot."""
    out = _restored_like(runner, plan)
    if not plan.tensor and isinstance(runner, TimedFrameRunner):
        return lambda frame: runner.timed_infer_frame(frame, out)
    if not isinstance(runner, TimedRunner) or (not plan.tensor and isinstance(runner, FrameRunner)):
        return None
    if plan.tensor:
        return lambda batch: runner.timed_infer(batch)[1]
    padding = Padding.to_multiple(plan.size_hw, runner.spec.multiple_of)

    def timed_frame(frame: Frame) -> InferenceTiming:
        """The host converts before and after."""
        began = clock()
        restored, timing = runner.timed_infer(batch_from_frame(frame, padding))
        frame_from_batch(restored, padding.scaled(runner.spec.scale), out)
        beyond_ms = timing.copy_in_ms + timing.device_ms + timing.copy_out_ms
        return replace(timing, host_ms=max(0.0, (clock() - began) / 1e6 - beyond_ms))

    return timed_frame
