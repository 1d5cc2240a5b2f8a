"""Two runs taken in turn: no difference where there is none, 10 % is seen, on a machine as noisy as real ones."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from noisy_machine import NoisyMachine

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.comparison import Comparison, compare, interleave

TRIALS = 100
ROUNDS = 50


def trial(seed: int, ratio: float, machine: NoisyMachine | None = None) -> Comparison:
    """Compare 10 ms of work with `ratio` times as much."""
    machine = machine or NoisyMachine(seed)
    a_ms, b_ms = interleave(
        lambda: machine.run_ms(10), lambda: machine.run_ms(10 * ratio), rounds=ROUNDS, seed=seed
    )
    return compare(a_ms, b_ms)


MACHINES: dict[str, Callable[[int], NoisyMachine]] = {
    "usual": NoisyMachine,
    "loaded": lambda seed: NoisyMachine(seed, wander=0.3, memory=200, jitter=0.06),
    "flickering": lambda seed: NoisyMachine(seed, wander=0.1, memory=2, jitter=0.05),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("ratio", "expected"), [(1.0, "no difference seen"), (1.1, "slower")], ids=["A", "+10"])
def test_the_verdict_is_right_95_times_in_100(machine: str, ratio: float, expected: str) -> None:
    verdicts: list[str] = [trial(seed, ratio, MACHINES[machine](seed)).verdict for seed in range(TRIALS)]
    assert verdicts.count(expected) >= 95


def test_the_interval_holds_the_ratio_99_times_in_100() -> None:
    intervals = [trial(seed, 1.03).interval for seed in range(TRIALS)]
    held = [interval.high is not None and interval.low <= 1.03 <= interval.high for interval in intervals]
    assert sum(held) >= 96


def test_what_slows_both_down_cancels() -> None:
    drift = iter(np.linspace(10, 40, 400))
    machine_ms = lambda work: work * next(drift)  # noqa: E731
    comparison = compare(*interleave(lambda: machine_ms(1.0), lambda: machine_ms(1.1), rounds=100))
    assert comparison.ratio == pytest.approx(1.1, rel=1e-3)
    assert comparison.verdict == "slower"


@pytest.mark.parametrize("every", [2, 4, 8])
def test_a_disturbance_with_a_period_hits_neither_more_often(every: int) -> None:
    def disturbed_ms() -> float:
        nonlocal count
        count += 1
        return 13.0 if count % every == 0 else 10.0

    verdicts = []
    for seed in range(20):
        count = 0
        verdicts.append(compare(*interleave(disturbed_ms, disturbed_ms, rounds=100, seed=seed)).verdict)
    assert verdicts.count("no difference seen") >= 19


def test_less_than_one_percent_is_no_difference() -> None:
    random = np.random.default_rng(0)
    a, b = 10 + 0.01 * random.normal(size=(2, 1000))
    assert compare(a, 1.008 * b).verdict == "no difference seen"
    assert compare(a, 1.012 * b).verdict == "slower"
    assert compare(1.012 * b, a).verdict == "faster"


def test_no_run_comes_first_more_often_than_the_other() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], float]:
        def run_ms() -> float:
            order.append(name)
            return 1.0

        return run_ms

    a_ms, b_ms = interleave(run("a"), run("b"), rounds=100)
    assert len(a_ms) == len(b_ms) == 200
    rounds = ["".join(order[i : i + 4]) for i in range(0, 400, 4)]
    assert set(rounds) == {"abba", "baab"}
    assert 35 <= rounds.count("abba") <= 65
    after_itself = [first for first, second in pairwise(order) if first == second]
    assert 0.4 < after_itself.count("a") / len(after_itself) < 0.6


def test_times_that_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="11 pairs of times; expected at least 12 to compare: run longer"):
        compare([1.0] * 11, [1.0] * 11)
    with pytest.raises(BadInput, match="time 3 of 12 is 0 ms; expected more: take times from a finer clock"):
        compare([1.0] * 12, [1.0, 1.0, 0.0, *[1.0] * 9])
    with pytest.raises(ValueError, match="compared in pairs, got 12 and 13"):
        compare([1.0] * 12, [1.0] * 13)
