"""Percentiles, mean and spread of a series of latencies, each with a confidence interval.

    latency = summarise(times_ms)
    print(latency.p99, latency.intervals["p99"])

Times are given in the order of measurement: neighbours resemble each other, and the more they do, the wider are the
intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput

Series = NDArray[np.float64]

_INSIGNIFICANT = 2.0  # c of Politis and White: the bound is c sqrt(log10 n / n)
_RUN = 5  # their K_n: so many insignificant lags in a row end the search for significant ones


def resampled_means(series: Series, block: int, resamples: int, seed: int) -> Series:
    """Means of `resamples` bootstrap samples of every column of `series` (samples, columns): (resamples, columns).

    All columns are drawn alike. A sample has as many whole blocks as fit into the series.
    """
    samples = len(series)
    starts = np.random.default_rng(seed).integers(0, samples, (resamples, max(samples // block, 1)))
    sums = np.cumsum(np.vstack([np.zeros_like(series[:1]), series, series[: block - 1]]), axis=0)
    block_means = (sums[block:] - sums[:-block]) / block
    return np.stack([column[starts].mean(axis=1) for column in block_means.T], axis=1)


def block_length(series: Series) -> int:
    """Samples per block that suit the autocorrelation of `series`, at most a third of it (Politis and White 2004,
    corrected by Patton, Politis and White 2009). At least the cube root of the length, in case the estimate misses
    a weak but long correlation. The ranks are looked at, not the values: one spike would hide the rest.
    """
    samples = len(series)
    least = math.ceil(float(np.cbrt(samples)))
    most = max(min(math.ceil(3 * math.sqrt(samples)), samples // 3), 1)
    correlation = _autocorrelation(_midranks(series), min(math.ceil(math.sqrt(samples)) + _RUN, samples - 1))
    reach = 2 * _last_significant(correlation, samples)
    lags = np.arange(1, min(reach, len(correlation) - 1) + 1)
    weighted = np.clip(2 - 2 * lags / max(reach, 1), 0, 1) * correlation[lags]
    spectrum = 1 + 2 * float(weighted.sum())
    slope = 2 * float(lags @ weighted)
    best = math.ceil(float(np.cbrt(1.5 * samples * (slope / spectrum) ** 2))) if spectrum > 0 else most
    return min(max(best, least), most)


def _midranks(series: Series) -> Series:
    """The ranks of the values from 0 to 1; equal values share the middle of theirs."""
    _, position, counts = np.unique(series, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(series)
    return np.asarray(ranks[position], np.float64)


def _autocorrelation(series: Series, lags: int) -> Series:
    """At lags 0 to `lags`; of a constant series all 0."""
    centred = series - series.mean()
    products = np.array([centred[: len(centred) - lag] @ centred[lag:] for lag in range(lags + 1)])
    return np.asarray(products / (products[0] or 1.0), np.float64)


def _last_significant(correlation: Series, samples: int) -> int:
    """The lag after which the next few are all insignificant; the last significant one if there is none."""
    bound = _INSIGNIFICANT * math.sqrt(math.log10(max(samples, 10)) / samples)
    significant = np.flatnonzero(np.abs(correlation) >= min(bound, correlation[0]))  # lag 0 at least
    gaps = np.diff(significant, append=len(correlation) + _RUN)
    return int(significant[np.argmax(gaps > _RUN)])


Times = NDArray[np.float64]
_Intervals = dict[str, "Interval"]

_LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_RESAMPLES = 1000
_FEWEST = 5  # a bootstrap of fewer samples means nothing


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
        raise BadInput("no times were measured; expected at least one: run longer")
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
            "take times from a finer clock, or of larger frames"
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
