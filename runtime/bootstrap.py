"""The moving-block bootstrap: how far a statistic of a series strays when neighbours in time resemble each other.

Latencies do: a busy neighbour, a clock, a page cache last for many frames. Drawing single samples would take them
for independent and give intervals that are far too narrow, so whole blocks are drawn (Kuensch 1989), from the
series closed to a circle, which gives every sample the same weight (Politis and Romano 1992).
"""

import math

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

_INSIGNIFICANT = 2.0  # standard errors of an autocorrelation, with the sqrt(log10 n) of Politis and White


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
    least = math.ceil(samples ** (1 / 3))
    most = max(min(math.ceil(3 * math.sqrt(samples)), samples // 3), 1)
    correlation = _autocorrelation(
        midranks(series), min(math.ceil(math.sqrt(samples)) + _run(samples), samples - 1)
    )
    reach = 2 * _last_significant(correlation, samples)
    lags = np.arange(1, min(reach, len(correlation) - 1) + 1)
    weighted = np.clip(2 - 2 * lags / max(reach, 1), 0, 1) * correlation[lags]
    spectrum = 1 + 2 * float(np.sum(weighted))
    slope = 2 * float(np.sum(lags * weighted))
    best = (1.5 * samples * (slope / spectrum) ** 2) ** (1 / 3) if spectrum > 0 else most
    return min(max(math.ceil(best), least), most)


def midranks(series: Series) -> Series:
    """The ranks of the values from 0 to 1; equal values share the middle of theirs."""
    _, position, counts = np.unique(series, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2) / len(series))[position]


def _run(samples: int) -> int:
    """How many insignificant lags in a row end the search for significant ones."""
    return max(5, math.ceil(math.sqrt(math.log10(max(samples, 10)))))


def _autocorrelation(series: Series, lags: int) -> Series:
    """At lags 0 to `lags`; of a constant series 1, 0, 0, ..."""
    centred = series - series.mean()
    power = float(centred @ centred)
    if power == 0:
        return np.eye(1, lags + 1)[0]
    return np.array([float(centred[: len(centred) - lag] @ centred[lag:]) / power for lag in range(lags + 1)])


def _last_significant(correlation: Series, samples: int) -> int:
    """The lag after which the next few are all insignificant; the last significant one where there is no such."""
    bound = _INSIGNIFICANT * math.sqrt(math.log10(max(samples, 10)) / samples)
    significant = np.flatnonzero(np.abs(correlation[1:]) >= bound) + 1
    gaps = np.diff(np.concatenate([[0], significant, [len(correlation) + _run(samples)]]))
    first_gap = int(np.argmax(gaps > _run(samples)))
    return int(np.concatenate([[0], significant])[first_gap])
