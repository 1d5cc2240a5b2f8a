"""Whether a device keeps its speed over many minutes.

    with Telemetry() as telemetry:
        series = measure(stopwatch, 1800, control)
    sustained = find_throttling(series.times_ms, series.ends_s, telemetry.readings)
    print(sustained.verdict, sustained.onset_s, sustained.causes)

The run is cut into windows, and those of its end are set beside those of its beginning. Clocks, temperatures and
what the driver says of throttling tell why, where there are sensors.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.latency import Times, checked
from unblur.runtime.telemetry.record import Reading
from unblur.runtime.telemetry.sensor import Quantity

Verdict = Literal["steady", "slower", "throttled", "faster"]

_WINDOWS = 50
_ENDS = 10  # windows at the beginning, and at the end, that are set side by side
_T_99 = 2.878  # of Student's t with 2 * _ENDS - 2 degrees of freedom, two-sided
_NEGLIGIBLE = 0.02
_CLOCK_FELL = 0.02
_THROTTLED_PERCENT = 1.0


@dataclass(frozen=True)
class Window:
    """A fiftieth of the inferences. start_s: since the run began. clocks_mhz, temperature_c: means by unit and by
    zone, empty where no sensor answered in it.
    """

    start_s: float
    samples: int
    p50_ms: float
    clocks_mhz: Mapping[str, float]
    temperature_c: Mapping[str, float]


@dataclass(frozen=True)
class Sustained:
    """A long run. seconds: its length. slowdown: the typical latency of its last fifth over that of its first, less
    1, so that 0.12 is 12 % slower in the end. slowdown_interval: (low, high), 99 %.

    verdict: "slower" if it is certainly slower by 2 % or more, "throttled" if clocks or the driver tell why, which
    `causes` has in words. onset_s: when the level changed, or was half way; None if steady.
    """

    seconds: float
    windows: tuple[Window, ...]
    slowdown: float
    slowdown_interval: tuple[float, ...]
    onset_s: float | None
    verdict: Verdict
    causes: tuple[str, ...]


def find_throttling(
    times_ms: Sequence[float] | Times, ends_s: Sequence[float] | Times, readings: Sequence[Reading] = ()
) -> Sustained:
    """Judge a sustained run.

    times_ms: of at least 50 inferences in order. ends_s: when each was done. readings: of a `Telemetry`. Both count
    seconds from the moment the run began.

    Raises BadInput if there are too few, or if a time is not finite or not above 0.
    """
    times, ends = checked(times_ms, zero=False), np.asarray(ends_s, np.float64)
    if len(times) < _WINDOWS:
        raise BadInput(f"{len(times)} inferences in a sustained run; expected at least {_WINDOWS}: run longer")
    parts = np.array_split(np.arange(len(times)), _WINDOWS)
    windows = tuple(_window(times[part], ends[part], readings) for part in parts)
    p50s = np.array([window.p50_ms for window in windows])
    slowdown, low, high = _slowdown(p50s)
    verdict = _verdict(low, high)
    onset_s = windows[_change_point(p50s)].start_s if verdict != "steady" else None
    causes = tuple(_causes(readings, onset_s, slowdown)) if onset_s is not None and verdict == "slower" else ()
    return Sustained(
        seconds=float(ends[-1]),
        windows=windows,
        slowdown=slowdown,
        slowdown_interval=(low, high),
        onset_s=onset_s,
        verdict="throttled" if causes else verdict,
        causes=causes,
    )


def _window(times: Times, ends: Times, readings: Sequence[Reading]) -> Window:
    start_s = float(ends[0] - times[0] / 1000)
    within = [reading for reading in readings if start_s <= reading.seconds <= ends[-1]]
    return Window(
        start_s=start_s,
        samples=len(times),
        p50_ms=float(np.median(times)),
        clocks_mhz=_means(within, "clocks_mhz"),
        temperature_c=_means(within, "temperature_c"),
    )


def _means(readings: Iterable[Reading], quantity: Quantity) -> dict[str, float]:
    """By name, of the channels with that quantity."""
    values: dict[str, list[float]] = {}
    for reading in readings:
        for channel, value in reading.values.items():
            if channel.quantity == quantity:
                values.setdefault(channel.name, []).append(value)
    return {name: float(np.mean(of_name)) for name, of_name in values.items()}


def _slowdown(p50s: Times) -> tuple[float, float, float]:
    """The end over the beginning, less 1, and its interval (Welch's, of logarithms).

    The noise is that between windows, so what comes and goes within minutes is in it.
    """
    first, last = np.log(p50s[:_ENDS]), np.log(p50s[-_ENDS:])
    change = float(last.mean() - first.mean())
    reach = _T_99 * math.sqrt(float(first.var(ddof=1) + last.var(ddof=1)) / _ENDS)
    return math.expm1(change), math.expm1(change - reach), math.expm1(change + reach)


def _verdict(low: float, high: float) -> Literal["steady", "slower", "faster"]:
    if low > _NEGLIGIBLE:
        return "slower"
    return "faster" if high < -_NEGLIGIBLE else "steady"


def _change_point(p50s: Times) -> int:
    """The first window after the level changed: where the sums of deviations from the mean turn (CUSUM)."""
    return int(np.argmax(np.abs(np.cumsum(p50s - p50s.mean())[:-1]))) + 1


def _causes(readings: Sequence[Reading], onset_s: float, slowdown: float) -> Iterable[str]:
    """Clocks that fell with the onset, and reasons to throttle that the driver gave after it.

    A clock explains a slowdown only if it fell by half as much at least: that of an idle core always wanders.
    """
    fell = max(_CLOCK_FELL, slowdown / (1 + slowdown) / 2)
    before = [reading for reading in readings if reading.seconds < onset_s]
    after = [reading for reading in readings if reading.seconds >= onset_s]
    earlier, later = _means(before, "clocks_mhz"), _means(after, "clocks_mhz")
    for name in sorted(earlier.keys() & later.keys()):
        if later[name] < (1 - fell) * earlier[name]:
            yield f"clock {name} fell from {earlier[name]:.0f} to {later[name]:.0f} MHz"
    for name, percent in _means(after, "throttled_percent").items():
        if percent >= _THROTTLED_PERCENT:
            yield f"throttled by {name} {percent:.0f} % of the time"
