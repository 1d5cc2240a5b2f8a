"""A warm-up ends on noise of every kind, soon, and not while something drifts."""

from collections.abc import Callable

import numpy as np
import pytest
from noisy_machine import NoisyMachine, autocorrelated
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.stationarity import WarmUp, drift_of, is_stationary

Random = np.random.Generator
Times = NDArray[np.float64]

MOST = 3000


def spiked(times: Times, at: slice | int) -> Times:
    times[at] *= 10
    return times


def busy(machine: NoisyMachine, samples: int) -> Times:
    return np.array([machine.run_ms(10) for _ in range(samples)])


def settled_after(times: Times) -> int | None:
    """How many of the times a warm-up takes; None if it does not settle within them."""
    warm_up = WarmUp(least_s=0, limit_s=1e9, limit_samples=len(times))
    for time in times:
        if warm_up.add(time):
            break
    return warm_up.samples if warm_up.settled else None


LEVEL: dict[str, tuple[Callable[[Random], Times], int]] = {
    "white noise of 0.2 %": (lambda random: 10 + 0.02 * random.normal(size=MOST), 40),
    "white noise of 2 %": (lambda random: 10 + 0.2 * random.normal(size=MOST), 420),
    "exponential": (lambda random: random.exponential(10, MOST), 1100),
    "heavy tails": (lambda random: 10 + 0.2 * np.abs(random.standard_t(2, MOST)), 420),
    "two modes": (lambda random: random.choice([10.0, 14.0], MOST) + 0.1 * random.normal(size=MOST), 850),
    "one outlier": (lambda random: spiked(10 + 0.05 * random.normal(size=MOST), 12), 90),
    "every 20th": (lambda random: spiked(10 + 0.05 * random.normal(size=MOST), slice(7, None, 20)), 110),
    "period 4": (lambda random: 10 + np.tile([0.0, 2, 0, -1], MOST // 4) + 0.1 * random.normal(size=MOST), 110),
    "period 50": (lambda random: 10 + np.sin(np.arange(MOST) * np.pi / 25) + 0.1 * random.normal(size=MOST), 1100),
    "autocorrelation 0.5": (lambda random: 10 + 0.3 * autocorrelated(MOST, 0.5, random), 1700),
}


@pytest.mark.parametrize("noise", LEVEL)
def test_a_warm_up_sees_through_noise(noise: str) -> None:
    make, soon = LEVEL[noise]
    counts = [settled_after(make(np.random.default_rng(seed))) for seed in range(20)]
    assert all(count is not None and count <= soon for count in counts), counts


@pytest.mark.parametrize(("per_run", "noise"), [(0.01, 0.02), (0.002, 0.005), (0.001, 0.02), (-0.001, 0.02)])
def test_a_steady_drift_never_settles(per_run: float, noise: float) -> None:
    level = 10 * np.exp(per_run * np.arange(MOST))
    for seed in range(10):
        assert settled_after(level * (1 + noise * np.random.default_rng(seed).normal(size=MOST))) is None


def test_a_drift_that_is_too_slow_for_the_warm_up_shows_in_the_run() -> None:
    times = 10 * np.exp(0.0003 * np.arange(MOST)) * (1 + 0.002 * np.random.default_rng(0).normal(size=MOST))
    count = settled_after(times)
    assert count is not None
    assert not is_stationary(times[count : count + 300])


@pytest.mark.parametrize("slow", [1, 5, 30, 90])
def test_a_slow_beginning_is_left_behind(slow: int) -> None:
    for seed in range(20):
        times = 10 + 0.02 * np.random.default_rng(seed).normal(size=MOST)
        times[:slow] += 10 * np.exp(-np.arange(slow) / slow)
        count = settled_after(times)
        assert count is not None
        assert slow < count < 40 + 3 * slow


def test_it_goes_on_for_the_least_time_and_ends_at_its_limits() -> None:
    least = WarmUp(least_s=1.0)
    while not least.add(10.0):
        pass
    assert least.settled
    assert 1.0 <= least.seconds < 1.5
    assert least.samples == pytest.approx(100 * least.seconds)

    for limited in (WarmUp(limit_s=2.0), WarmUp(limit_samples=12)):
        ms = 100.0
        while not limited.add(ms):
            ms *= 1.1
        assert not limited.settled
        assert limited.seconds >= 2.0 or limited.samples == 12


def test_a_time_that_went_backwards() -> None:
    with pytest.raises(BadInput, match=r"went backwards: -1\.0 ms; expected 0 or more"):
        WarmUp().add(-1.0)
    with pytest.raises(BadInput, match="no times were measured"):
        is_stationary([])


def test_drift_is_the_change_from_end_to_end() -> None:
    drift = drift_of(np.linspace(95, 105, 801)[1:])
    assert drift.change == pytest.approx(0.1, rel=0.01)
    assert drift.standard_error < 1e-9


NOISE: dict[str, Callable[[Random, int], Times]] = {
    "white": lambda random, samples: 10 + 0.3 * random.normal(size=samples),
    "exponential": lambda random, samples: random.exponential(10, samples),
    "period 10": lambda random, samples: (
        10 + np.sin(np.arange(samples) * np.pi / 5) + 0.1 * random.normal(size=samples)
    ),
    "autocorrelation 0.8": lambda random, samples: 10 + 0.3 * autocorrelated(samples, 0.8, random),
    "a busy machine": lambda random, samples: busy(NoisyMachine(int(random.integers(2**32)), memory=5), samples),
}


@pytest.mark.parametrize("samples", [20, 300, 2000])
@pytest.mark.parametrize("noise", NOISE)
def test_noise_is_stationary(noise: str, samples: int) -> None:
    runs = [NOISE[noise](np.random.default_rng(seed), samples) for seed in range(30)]
    assert np.mean([is_stationary(times) for times in runs]) >= 0.85


CHANGES: dict[str, Callable[[Times], Times]] = {
    "drift": lambda share: 1 + 0.06 * share,
    "step": lambda share: np.where(share < 0.6, 1, 1.06),
    "slow in the middle": lambda share: np.where(np.abs(share - 0.5) < 0.2, 1.1, 1),
    "slow in the end": lambda share: np.where(share < 0.8, 1, 1.1),
    "slow in the beginning": lambda share: 1 + 0.5 * np.exp(-share / 0.1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_not_stationary(change: str) -> None:
    level = 10 * CHANGES[change](np.linspace(0, 1, 1000))
    runs = [level * (1 + 0.03 * np.random.default_rng(seed).normal(size=1000)) for seed in range(40)]
    assert not any(is_stationary(times) for times in runs)


def test_a_change_of_one_percent_does_not_matter() -> None:
    assert is_stationary(np.linspace(10, 10.1, 5000))
    assert not is_stationary(np.linspace(10, 10.5, 5000))


def test_a_few_times_are_stationary() -> None:
    assert is_stationary([1.0])
    assert is_stationary([0.0, 0.0, 0.0])
