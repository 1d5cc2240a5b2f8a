"""The moving-block bootstrap: how far a statistic of a series strays when neighbours in time resemble each other.

Latencies do: a busy neighbour, a clock, a page cache last for many frames. Drawing single samples would take them
for independent and give intervals that are far too narrow, so whole blocks are drawn (Kuensch 1989), from the
series closed to a circle, which gives every sample the same weight (Politis and Romano 1992).
"""

import math

import numpy as np
from numpy.typing import NDArray

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
    """The lag after which the next few are all insignificant; the last significant one where there is no such."""
    bound = _INSIGNIFICANT * math.sqrt(math.log10(max(samples, 10)) / samples)
    significant = np.flatnonzero(np.abs(correlation) >= min(bound, correlation[0]))  # lag 0 at least
    gaps = np.diff(significant, append=len(correlation) + _RUN)
    return int(significant[np.argmax(gaps > _RUN)])
