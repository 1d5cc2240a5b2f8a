"""Which of two things is faster, on a machine whose speed drifts.

    a_ms, b_ms = interleave(run_a_ms, run_b_ms, rounds=100)
    print(compare(a_ms, b_ms).verdict)

They are timed in turn and compared in pairs of neighbours, so that what slows the machine down hits both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.latency import Interval, Times, checked, summarise

Verdict = Literal["faster", "slower", "no difference seen"]

_FEWEST_PAIRS = 12
_CONFIDENCE = 0.99  # one false alarm in 100, where 95 right verdicts are asked for
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class Comparison:
    """ratio: the median time of b over that of the a beside it. interval: 99 %. verdict: what b is beside a."""

    ratio: float
    interval: Interval
    verdict: Verdict


def interleave(
    a: Callable[[], float], b: Callable[[], float], *, rounds: int, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Run `a` and `b` in turn, each two times a round; each returns how many milliseconds it took.

    A round is A B B A or B A A B, by chance: a steady drift cancels within it, each comes first, second and after
    itself as often as the other, and a disturbance every fourth run cannot always hit the same one.
    """
    chance = np.random.default_rng(seed)
    a_ms: list[float] = []
    b_ms: list[float] = []
    for a_first in chance.random(rounds) < 0.5:
        outer, inner = [(a, a_ms), (b, b_ms)][:: 1 if a_first else -1]
        for run_ms, times_ms in (outer, inner, inner, outer):
            times_ms.append(run_ms())
    return a_ms, b_ms


def compare(a_ms: Sequence[float] | Times, b_ms: Sequence[float] | Times) -> Comparison:
    """Say what b is beside a: "slower", "faster", or "no difference seen". The times are those of `interleave`.

    Each time of b is divided by the time of a that was measured beside it, so that whatever slows both down for a
    while cancels. The ratio is the median of all pairs, which those that were disturbed hardly move while they are
    fewer than half; its 99 % interval is that of any median here, see `summarise`. A difference counts from 1 % on:
    where the memory of a session happens to lie can change its times too (Mytkowicz et al. 2009).

    Raises BadInput if there are fewer than 12 pairs, or if a time is not finite or not above 0; ValueError if one
    has more times than the other.
    """
    a, b = checked(a_ms, zero=False), checked(b_ms, zero=False)
    if len(a) != len(b):
        raise ValueError(f"times are compared in pairs, got {len(a)} and {len(b)}")
    if len(a) < _FEWEST_PAIRS:
        raise BadInput(f"{len(a)} pairs of times; expected at least {_FEWEST_PAIRS} to compare: run longer")
    ratios = b / a
    interval = summarise(ratios, confidence=_CONFIDENCE).intervals["p50"]
    return Comparison(float(np.median(ratios)), interval, _verdict(interval))


def _verdict(ratio: Interval) -> Verdict:
    if ratio.low > 1 + _NEGLIGIBLE:
        return "slower"
    if ratio.high is not None and ratio.high < 1 / (1 + _NEGLIGIBLE):
        return "faster"
    return "no difference seen"
