"""Timing inferences one by one: the loops of a profile, with nothing in them but the network and a clock."""

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch
from unblur.runtime.profile.stationarity import WarmUp
from unblur.runtime.runner import Runner

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
    judge = WarmUp(limit_s=limit_s)
    while not control.stop.is_set() and not judge.add(stopwatch()):
        control.watch("warming up", None)
    return judge


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
