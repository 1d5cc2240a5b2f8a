"""Whether latencies have settled: when a warm-up is over, and whether a finished run kept its level.

    warm_up = WarmUp()
    while not warm_up.add(run_once_ms()):
        pass
    print(warm_up.settled)

The two tests are opposite. A warm-up goes on until the latency is shown to be level. A finished run counts as
stationary unless it is shown not to be.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.machine.sensors import Quantity
from unblur.runtime.machine.telemetry import Reading
from unblur.runtime.profile.latency import Times, checked

_BATCHES = 8
_T_95 = 1.943  # of Student's t with _BATCHES - 2 degrees of freedom, one-sided
_LEAST_SAMPLES = 16
_GROWTH = 1.25  # of the samples from one look to the next
_LOOKS = 2  # in a row that must find the times level
_TOLERANCE = 0.01  # of the median, beside one standard deviation of the noise

_KPSS_1_PERCENT = 0.739  # Kwiatkowski et al. 1992, table 1, level stationarity
_NEGLIGIBLE = 0.02  # of the median, between two quarters of a run


@dataclass(frozen=True)
class Drift:
    """How much latencies grew from the beginning of a series to its end, as a share of their median."""

    change: float
    standard_error: float


class WarmUp:
    """Takes one time after another; over once the last half of them is level at two looks in a row.

    Level: with 95 % confidence the drift over that half is less than one percent of the median and one standard
    deviation of the noise. k slow times in the beginning are left behind after some 2k. White noise of 0.2 % takes
    about 20 times, 2 % 140, 10 % and more 300. A drift that is still hidden in the noise passes;
    `is_stationary` finds it in the run that follows.

    least_s: go on for so long, since clocks take time to rise under load. limit_s, limit_samples: give up then.
    """

    def __init__(self, *, least_s: float = 0.5, limit_s: float = 30.0, limit_samples: int = 10_000) -> None:
        self._least_s = least_s
        self._limit_s = limit_s
        self._limit_samples = limit_samples
        self._times_ms: list[float] = []
        self._next_look = _LEAST_SAMPLES
        self._level_looks = 0
        self.seconds = 0.0

    @property
    def samples(self) -> int:
        return len(self._times_ms)

    @property
    def settled(self) -> bool:
        return self._level_looks >= _LOOKS

    def add(self, ms: float) -> bool:
        """Take one more time; True once the warm-up is over, because it `settled` or because a limit was reached.

        Raises BadInput if the time is negative or not finite.
        """
        checked([ms])
        self._times_ms.append(ms)
        self.seconds += ms / 1000
        if self.samples >= self._next_look and self.seconds >= self._least_s:
            self._next_look = math.ceil(self.samples * _GROWTH)
            level = _is_level(np.array(self._times_ms[-(self.samples // 2) :]))
            self._level_looks = self._level_looks + 1 if level else 0
        return self.settled or self.samples >= self._limit_samples or self.seconds >= self._limit_s


def is_stationary(times_ms: Sequence[float] | Times) -> bool:
    """Whether a finished run kept its level, as far as the data show.

    False if the indicator KPSS test rejects it at 1 % and the medians of two quarters differ by 2 % or more. The
    test (de Jong, Amsler and Schmidt 2007) is that of the signs around the median: outliers and heavy tails do not
    matter.

    Raises BadInput if there are no times, or if one is negative or not finite.
    """
    times = checked(times_ms)
    quarters = [float(np.median(quarter)) for quarter in np.array_split(times, 4) if quarter.size]
    differ = max(quarters) - min(quarters) >= _NEGLIGIBLE * float(np.median(times))
    return not differ or _indicator_kpss(times) < _KPSS_1_PERCENT


def drift_of(times: Times) -> Drift:
    """The drift of at least 8 times, from a line through the middles of 8 batches of them in order.

    Whatever correlation or period is shorter than a batch shows in how far they lie from the line, and so in the
    standard error: the method of batch means.
    """
    batch = len(times) // _BATCHES
    middles = _middles(times[len(times) - batch * _BATCHES :].reshape(_BATCHES, batch))
    position = (np.arange(_BATCHES) - (_BATCHES - 1) / 2) / _BATCHES
    power = float(position @ position)
    change = float(position @ middles) / power
    residuals = middles - middles.mean() - change * position
    error = math.sqrt(float(residuals @ residuals) / (_BATCHES - 2) / power)
    level = max(float(np.median(times)), np.finfo(float).tiny)
    return Drift(change / level, error / level)


def _middles(batches: Times) -> Times:
    """The mean of the middle half of every row: an outlier does not move it, nor does it jump between two modes, as
    a median would.
    """
    size = batches.shape[1]
    trim = min(math.ceil(size / 4), (size - 1) // 2)
    return np.asarray(np.sort(batches, axis=1)[:, trim : size - trim].mean(axis=1))


def _is_level(times: Times) -> bool:
    drift = drift_of(times)
    lower, median, upper = np.quantile(times, [0.25, 0.5, 0.75])
    deviation = (upper - lower) / 1.349 / max(median, np.finfo(float).tiny)  # that of a normal distribution
    return abs(drift.change) + _T_95 * drift.standard_error <= _TOLERANCE + float(deviation)


def _indicator_kpss(times: Times) -> float:
    signs = np.sign(times - np.median(times))
    samples = len(signs)
    lags = min(int(8 * (samples / 100) ** 0.25), samples - 1)  # between the l4 and the l12 of the paper
    bartlett = 1 - np.arange(1, lags + 1) / (lags + 1)
    covariances = np.array([signs[lag:] @ signs[:-lag] for lag in range(1, lags + 1)])
    variance = float(signs @ signs + 2 * bartlett @ covariances) / samples
    excursions = np.cumsum(signs)
    return float(excursions @ excursions) / samples**2 / variance if variance > 0 else 0.0


Verdict = Literal["steady", "slower", "throttled", "faster"]

_WINDOWS = 50
_ENDS = 10  # windows at the beginning and at the end that are compared
_T_99 = 2.878  # of Student's t with 2 * _ENDS - 2 degrees of freedom, two-sided
_NEGLIGIBLE_DRIFT = 0.02
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

    verdict: "slower" by 2 % or more with 99 % confidence, "throttled" if clocks or the driver explain it; `causes`
    says how. onset_s: when the level changed, or was half way; None if steady.
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
    """Find out whether a sustained run slowed down, when and why.

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
    if low > _NEGLIGIBLE_DRIFT:
        return "slower"
    return "faster" if high < -_NEGLIGIBLE_DRIFT else "steady"


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
