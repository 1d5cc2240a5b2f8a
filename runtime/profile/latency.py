"""What a series of latencies says, and how sure that is: percentiles, mean and spread, each with an interval.

    latency = summarise(times_ms)
    print(latency.p99, latency.intervals["p99"])

Times are given in the order in which they were measured: how much neighbours resemble each other decides how much
so many of them tell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.bootstrap import block_length, resampled_means

Times = NDArray[np.float64]
_Intervals = dict[str, "Interval"]

_LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_RESAMPLES = 1000
_FEWEST = 5  # fewer samples, drawn again and again, say nothing about the mean of others


@dataclass(frozen=True)
class Interval:
    """Where the true value lies, with the confidence that was asked for.

    high: None if the samples are too few to bound it: the true p99.9 may be any higher than the slowest of 1000.
    """

    low: float
    high: float | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds; `cv` is the standard deviation over the mean. intervals: "p50", "p90", ..., "mean", "cv".

    A percentile is the smallest sample that so many percent are at or below, never a value between two.
    """

    samples: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    cv: float
    intervals: Mapping[str, Interval]


def summarise(times_ms: Sequence[float] | Times, *, seed: int = 0, confidence: float = 0.95) -> Latency:
    """Percentiles, mean and coefficient of variation of latencies in the order in which they were measured.

    The intervals come from 1000 samples of a moving-block bootstrap. That of a percentile is looked for among the
    ranks (Woodruff 1952) and is never narrower than the exact one of independent samples, whose ends are two order
    statistics; where the upper one would lie beyond the slowest sample, there is no upper end. Those of the mean
    and of the CV are a little too narrow below 100 samples.

    Raises BadInput if there are no samples, or if one is negative or not finite.
    """
    times = checked(times_ms)
    ordered = np.sort(times)
    percentiles = [float(value) for value in np.quantile(ordered, list(_LEVELS.values()), method="inverted_cdf")]
    mean = float(times.mean())
    return Latency(
        samples=len(times),
        mean=mean,
        cv=float(times.std()) / mean if mean else 0.0,
        intervals=_intervals(times, ordered, percentiles, seed, confidence),
        **dict(zip(_LEVELS, percentiles, strict=True)),
    )


def checked(times_ms: Sequence[float] | Times, *, zero: bool = True) -> Times:
    """The times as an array. zero: whether one may be 0.

    Raises BadInput if there are none, or if one is negative or not finite.
    """
    times = np.asarray(times_ms, np.float64)
    if times.size == 0:
        raise BadInput("there is no time to judge; expected at least one: run longer")
    wrong = np.flatnonzero(~(np.isfinite(times) & (times >= 0)))
    if wrong.size:
        at = int(wrong[0])
        found = "went backwards" if times[at] < 0 else "is not finite"
        raise BadInput(
            f"time {at + 1} of {times.size} {found}: {times[at]} ms; expected 0 or more: "
            "take times from a monotonic clock"
        )
    if not zero and not times.all():
        raise BadInput(
            f"time {int(np.argmin(times)) + 1} of {times.size} is 0 ms; expected more: "
            "take times from a finer clock, or of larger pictures"
        )
    return times


def _intervals(times: Times, ordered: Times, percentiles: list[float], seed: int, confidence: float) -> _Intervals:
    """One bootstrap for all of them: of the moments, and of the share of samples at or below each percentile."""
    tails = np.array([1 - confidence, 1 + confidence]) / 2
    mean = times.mean()
    columns = [times - mean, np.square(times - mean), *(times <= value for value in percentiles)]
    off, square, *shares = resampled_means(np.column_stack(columns), block_length(times), _RESAMPLES, seed).T
    deviations = np.sqrt(np.maximum(square - np.square(off), 0))
    variations = deviations / np.maximum(mean + off, np.finfo(float).tiny)
    return {
        **{
            name: _percentile_interval(ordered, level, share, tails)
            for (name, level), share in zip(_LEVELS.items(), shares, strict=True)
        },
        "mean": _moment_interval(mean + off, len(times), tails),
        "cv": _moment_interval(variations, len(times), tails),
    }


def _moment_interval(resampled: Times, samples: int, tails: Times) -> Interval:
    if samples < _FEWEST:
        return Interval(0.0, None)
    low, high = np.quantile(resampled, tails)
    return Interval(float(low), float(high))


def _percentile_interval(ordered: Times, level: float, shares: Times, tails: Times) -> Interval:
    """Order statistics that bracket a percentile; `shares` at or below it are those of the bootstrap."""
    samples = len(ordered)
    strayed = samples * (level + np.quantile(shares - shares.mean(), tails))
    exact = _binomial_quantiles(samples, level, tails)
    low = min(math.floor(strayed[0]), int(exact[0]))
    high = max(math.ceil(strayed[1]), int(exact[1])) + 1
    return Interval(
        low=float(ordered[low - 1]) if low >= 1 else 0.0,
        high=float(ordered[high - 1]) if high <= samples else None,
    )


def _binomial_quantiles(trials: int, chance: float, tails: Times) -> NDArray[np.intp]:
    """The smallest counts of successes whose cumulative probabilities reach `tails`."""
    successes = np.arange(1, trials + 1)
    steps = np.log((trials - successes + 1) / successes * chance / (1 - chance))
    logarithms = trials * math.log1p(-chance) + np.concatenate([[0.0], np.cumsum(steps)])
    return np.searchsorted(np.cumsum(np.exp(logarithms)), tails)
