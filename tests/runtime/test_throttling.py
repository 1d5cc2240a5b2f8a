"""Long runs on machines that throttle, with and without sensors that tell why."""

from collections.abc import Callable

import numpy as np
import pytest
from noisy_machine import NoisyMachine
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.machine.sensors import Channel
from unblur.runtime.machine.telemetry import Reading
from unblur.runtime.profile.stationarity import Sustained, find_throttling
from unblur.runtime.strict_json import from_json, to_json

Level = Callable[[float], float]

RUNS = 3000
GPU = Channel("clocks_mhz", "GPU")
EMC = Channel("clocks_mhz", "EMC")
THERMAL = Channel("throttled_percent", "heat")
ZONE = Channel("temperature_c", "tj")


def run(level: Level, seed: int = 0, runs: int = RUNS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and ends of inferences whose cost follows `level` over the run, from 0 to 1."""
    machine = NoisyMachine(seed, wander=0.03, memory=5)
    times_ms = np.array([machine.run_ms(30 * level(i / runs)) for i in range(runs)])
    return times_ms, np.cumsum(times_ms) / 1000


def judged(level: Level, seed: int = 0) -> Sustained:
    return find_throttling(*run(level, seed))


def falling_clocks(ends_s: NDArray[np.float64], **shares: float) -> list[Reading]:
    """A reading a second; after 40 % of the run the clock of `GPU` or `EMC` falls to its share."""
    onset_s = 0.4 * ends_s[-1]
    readings = []
    for second in range(int(ends_s[-1])):
        late = second > onset_s
        clocks = {Channel("clocks_mhz", name): 1000.0 * (share if late else 1) for name, share in shares.items()}
        readings.append(Reading(second, {**clocks, ZONE: 50.0 + 40 * late}))
    return readings


def test_a_steady_run_is_steady() -> None:
    for seed in range(10):
        sustained = judged(lambda share: 1.0, seed)
        assert sustained.verdict == "steady"
        assert sustained.onset_s is None
        assert abs(sustained.slowdown) < 0.03


@pytest.mark.parametrize("onset", [0.25, 0.5, 0.85])
def test_a_step_is_found_where_it_is(onset: float) -> None:
    for seed in range(5):
        sustained = judged(lambda share: 1.15 if share >= onset else 1.0, seed)
        low, high = sustained.slowdown_interval
        begins_s = sustained.seconds * onset / (onset + 1.15 * (1 - onset))
        assert sustained.verdict == "slower"
        assert sustained.onset_s == pytest.approx(begins_s, abs=0.04 * sustained.seconds)
        assert 0.02 < low < sustained.slowdown < high
        if onset < 0.8:
            assert low < 0.15 < high


def test_a_slow_rise_and_a_clock_that_swings_are_slower_too() -> None:
    for seed in range(5):
        assert judged(lambda share: 1 + 0.12 * share, seed).verdict == "slower"
        assert judged(lambda share: 1.4 if share > 0.4 and share * 60 % 2 > 1 else 1.0, seed).verdict == "slower"


def test_a_cold_start_is_faster_in_the_end() -> None:
    sustained = judged(lambda share: 1.3 if share < 0.3 else 1.0)
    assert sustained.verdict == "faster"
    assert sustained.onset_s == pytest.approx(0.36 * sustained.seconds, rel=0.1)
    assert sustained.causes == ()


def test_a_clock_that_fell_is_the_cause() -> None:
    times_ms, ends_s = run(lambda share: 1.15 if share > 0.4 else 1.0)
    sustained = find_throttling(times_ms, ends_s, falling_clocks(ends_s, GPU=0.7, EMC=1.0))
    assert sustained.verdict == "throttled"
    (cause,) = sustained.causes
    assert cause.startswith("clock GPU fell from 1000 to 7")
    first, last = sustained.windows[0], sustained.windows[-1]
    assert (first.clocks_mhz["GPU"], last.clocks_mhz["GPU"]) == (1000, 700)
    assert (first.temperature_c, last.temperature_c) == ({"tj": 50}, {"tj": 90})


def test_a_driver_that_says_so_is_the_cause() -> None:
    times_ms, ends_s = run(lambda share: 1.15 if share > 0.4 else 1.0)
    readings = [Reading(float(second), {THERMAL: 100.0 * (second % 4 == 0)}) for second in range(int(ends_s[-1]))]
    (cause,) = find_throttling(times_ms, ends_s, readings).causes
    assert cause.startswith("throttled by heat 2")


def test_a_clock_that_fell_without_harm_is_no_throttling() -> None:
    times_ms, ends_s = run(lambda share: 1.0)
    sustained = find_throttling(times_ms, ends_s, falling_clocks(ends_s, GPU=0.7))
    assert (sustained.verdict, sustained.causes) == ("steady", ())


def test_windows_hold_all_inferences_and_survive_json() -> None:
    sustained = judged(lambda share: 1.0)
    assert len(sustained.windows) == 50
    assert sum(window.samples for window in sustained.windows) == RUNS
    assert sustained.windows[0].start_s == pytest.approx(0)
    assert sustained.windows[0].clocks_mhz == {}
    assert from_json(Sustained, to_json(sustained), "sustained") == sustained


def test_too_few_inferences() -> None:
    with pytest.raises(BadInput, match="49 inferences in a sustained run; expected at least 50: run longer"):
        find_throttling(*run(lambda share: 1.0, runs=49))
