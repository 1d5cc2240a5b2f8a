"""Whether latencies have settled: when a warm-up is over, and whether a finished run stayed where it was.

    warm_up = WarmUp()
    while not warm_up.add(run_once_ms()):
        pass
    print(warm_up.settled)

The two ask opposite questions. A warm-up goes on until it is shown that nothing drifts any more. A finished run
counts as stationary unless it is shown that it was not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """Fed with one time after the other; over once the last half of them is level, at two looks in a row.

    Level: with 95 % confidence the drift over that half is less than one percent of the median and one standard
    deviation of the noise. k slow times in the beginning are left behind after some 2k. White noise of 0.2 % takes
    about 20 times to see through, 2 % 140, 10 % and more 300. A drift too slow to be told from noise by then
    passes; `is_stationary` sees it in the run that follows.

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
    """Whether the level of a finished run stayed the same, as far as can be told.

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
