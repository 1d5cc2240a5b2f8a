"""Percentiles are exact; their intervals hold the truth as often as they say, whatever the distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_machine import autocorrelated
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.latency import Interval, block_length, summarise

LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
Noise = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """A distribution made from standard normal noise by an increasing function, so that its quantiles are known."""

    of_normal: Callable[[Noise], Noise]
    mean: float
    cv: float

    def quantile(self, level: float) -> float:
        return float(self.of_normal(np.array([NormalDist().inv_cdf(level)]))[0])


def uniform(noise: Noise) -> Noise:
    return np.array([NormalDist().cdf(float(value)) for value in noise.ravel()]).reshape(noise.shape)


def bimodal(noise: Noise) -> Noise:
    """10 +- 0.1 in 70 % of all, 20 +- 0.1 in 30 %."""
    share = uniform(noise)
    return np.where(share < 0.7, 9.9 + 0.2 * share / 0.7, 19.9 + 0.2 * (share - 0.7) / 0.3)


KNOWN = {
    "normal": Known(lambda noise: 20 + 2 * noise, mean=20, cv=0.1),
    "lognormal": Known(lambda noise: 10 * np.exp(0.3 * noise), 10 * np.exp(0.045), np.sqrt(np.expm1(0.09))),
    "exponential": Known(lambda noise: -5 * np.log1p(-uniform(noise)), mean=5, cv=1),
    "bimodal": Known(bimodal, mean=13, cv=np.sqrt(0.7 * 9 + 0.3 * 49 + 0.04 / 12) / 13),
}


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value and (interval.high is None or value <= interval.high)


def hits(known: Known, noise_of: Callable[[np.random.Generator], Noise], trials: int) -> dict[str, int]:
    """How often the intervals of each statistic held the true value."""
    truth = {**{name: known.quantile(level) for name, level in LEVELS.items()}, "mean": known.mean, "cv": known.cv}
    counts = dict.fromkeys(truth, 0)
    for trial in range(trials):
        intervals = summarise(known.of_normal(noise_of(np.random.default_rng(trial))), seed=trial).intervals
        for name, value in truth.items():
            counts[name] += holds(intervals[name], value)
    return counts


@pytest.mark.parametrize("name", KNOWN)
def test_95_percent_intervals_hold_the_truth_about_95_times_in_100(name: str) -> None:
    counts = hits(KNOWN[name], lambda random: random.normal(size=1000), trials=100)
    assert min(counts.values()) >= 89, counts


@pytest.mark.parametrize(("correlation", "least"), [(0.5, 88), (0.8, 84)])
def test_intervals_of_autocorrelated_times_hold_the_truth_too(correlation: float, least: int) -> None:
    counts = hits(KNOWN["normal"], lambda random: autocorrelated(1000, correlation, random), trials=100)
    assert min(counts.values()) >= least, counts


@given(st.sampled_from(sorted(KNOWN)), st.integers(0, 2**32), st.integers(200, 3000), st.floats(0.01, 1000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_estimates_are_near_the_truth(name: str, seed: int, samples: int, scale: float) -> None:
    known = KNOWN[name]
    times = scale * known.of_normal(np.random.default_rng(seed).normal(size=samples))
    latency = summarise(times, seed=seed, confidence=0.999)
    assert known.mean * scale == pytest.approx(latency.mean, rel=5 * known.cv / np.sqrt(samples))
    for statistic in ("p50", "p90"):
        assert holds(latency.intervals[statistic], known.quantile(LEVELS[statistic]) * scale)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
@settings(max_examples=100, deadline=None)
def test_percentiles_are_samples_inside_their_intervals(times: list[float]) -> None:
    latency = summarise(times)
    for name, level in LEVELS.items():
        value = getattr(latency, name)
        assert value == sorted(times)[math.ceil(Fraction(str(level)) * len(times)) - 1]
        assert holds(latency.intervals[name], value)
    assert latency.samples == len(times)
    assert latency.mean == pytest.approx(np.mean(times))


def test_a_percentile_that_the_samples_do_not_reach_has_no_upper_end() -> None:
    times = np.random.default_rng(0).exponential(size=20_000)
    for samples, unbounded in (
        (30, {"p90", "p99", "p999"}),
        (300, {"p99", "p999"}),
        (3000, {"p999"}),
        (20_000, set()),
    ):
        intervals = summarise(times[:samples]).intervals
        assert {name for name, interval in intervals.items() if interval.high is None} == unbounded


def test_the_order_of_times_counts() -> None:
    random = np.random.default_rng(3)
    times = 10 + autocorrelated(2000, 0.9, random)
    ordered, shuffled = summarise(times), summarise(random.permutation(times))
    assert ordered.p50 == shuffled.p50
    for name in ("p50", "p90", "mean"):
        assert _width(ordered.intervals[name]) > 2 * _width(shuffled.intervals[name])


def _width(interval: Interval) -> float:
    assert interval.high is not None
    return interval.high - interval.low


def test_equal_times_leave_no_doubt() -> None:
    latency = summarise([7.0] * 5000)
    assert latency.cv == 0
    assert set(latency.intervals.values()) == {Interval(7, 7), Interval(0, 0)}
    assert summarise([0.0] * 5).cv == 0


def test_one_time_tells_nothing_about_others() -> None:
    latency = summarise([3.0])
    assert latency.p999 == latency.mean == 3
    assert set(latency.intervals.values()) == {Interval(0, None)}


def test_one_seed_gives_one_interval() -> None:
    times = np.random.default_rng(0).normal(10, 1, 200)
    assert summarise(times, seed=1) == summarise(times, seed=1)
    assert summarise(times, seed=1).intervals["mean"] != summarise(times, seed=2).intervals["mean"]


def test_no_times() -> None:
    with pytest.raises(BadInput, match="no times were measured; expected at least one: run longer"):
        summarise([])


@pytest.mark.parametrize(("time", "found"), [(-0.5, "went backwards"), (np.nan, "is not finite")])
def test_times_that_are_none(time: float, found: str) -> None:
    with pytest.raises(
        BadInput, match=f"time 2 of 3 {found}: {time} ms; expected 0 or more: take times from a mono"
    ):
        summarise([1.0, time, 2.0])


def test_blocks_grow_with_the_correlation() -> None:
    random = np.random.default_rng(0)
    lengths = [block_length(autocorrelated(2000, correlation, random)) for correlation in (0.0, 0.5, 0.8, 0.95)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 13  # the cube root
    assert 60 < lengths[3] <= 135  # 3 sqrt(n) at most


def test_one_spike_does_not_hide_a_correlation() -> None:
    times = 10 + autocorrelated(2000, 0.8, np.random.default_rng(0))
    expected = block_length(times)
    times[1000] = 1e6
    assert block_length(times) == pytest.approx(expected, abs=3)
