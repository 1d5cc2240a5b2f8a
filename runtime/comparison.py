"""Which of two things is faster, timed in turn on a machine whose speed drifts.

a_ms, b_ms = interleave(run_a_ms, run_b_ms, rounds=200)
comparison = compare(a_ms, b_ms)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.latency import Interval, Times, checked

Verdict = Literal["faster", "slower", "no difference seen"]

_BLOCKS = 12
_T_99 = 3.106  # of Student's t with _BLOCKS - 1 degrees of freedom, two-sided
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class Comparison:
    """ratio: the typical time of b over that of the a beside it. interval: 99 %. verdict: what b is."""

    ratio: float
    interval: Interval
    verdict: Verdict

    def to_json(self) -> dict[str, object]:
        return {"ratio": self.ratio, "interval": self.interval.to_json(), "verdict": self.verdict}


def interleave(
    a: Callable[[], float],
    b: Callable[[], float],
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
) -> tuple[list[float], list[float]]:
    """Run `a` and `b` in turn; each returns how many milliseconds it took.

    A round is A B B A or B A A B, by chance: a steady drift cancels within it, each comes first, second and after
    itself as often as the other, and a disturbance every fourth run cannot always hit the same one.
    Ends after `rounds`, or once all runs together have taken `seconds`; each has two runs per round.
    """
    if (rounds is None) == (seconds is None):
        raise ValueError("either rounds or seconds ends an interleaved run")
    chance = np.random.default_rng(seed)
    a_ms: list[float] = []
    b_ms: list[float] = []
    while not _enough(a_ms, b_ms, rounds, seconds):
        outer, inner = [(a, a_ms), (b, b_ms)][:: 1 if chance.random() < 0.5 else -1]
        for run, times_ms in (outer, inner, inner, outer):
            times_ms.append(run())
    return a_ms, b_ms


def compare(a_ms: Sequence[float] | Times, b_ms: Sequence[float] | Times) -> Comparison:
    """Say what b is beside a: "slower", "faster", or "no difference seen". The times are those of `interleave`.

    Each time of b is divided by the time of a that was measured beside it, so that whatever slows both down for a
    while cancels. The pairs are cut into 12 stretches; the ratio is the geometric mean of the 12 medians, and its
    99 % interval Student's, of their logarithms: medians do not see outliers, and stretches are independent where
    neighbours are not. A difference counts from 1 % on: two sessions of one model differ by less, each time in the
    same direction, from where their memory lies.

    Raises BadInput if there are fewer than 12 pairs, or if a time is not finite or not above 0; ValueError if one
    has more times than the other.
    """
    a, b = checked(a_ms, zero=False), checked(b_ms, zero=False)
    if len(a) != len(b):
        raise ValueError(f"times are compared in pairs, got {len(a)} and {len(b)}")
    if len(a) < _BLOCKS:
        raise BadInput(f"{len(a)} pairs of times; expected at least {_BLOCKS} to compare: run longer")
    medians = np.array([np.median(stretch) for stretch in np.array_split(np.log(b / a), _BLOCKS)])
    middle = float(medians.mean())
    reach = _T_99 * float(medians.std(ddof=1)) / math.sqrt(_BLOCKS)
    low, high = math.exp(middle - reach), math.exp(middle + reach)
    return Comparison(math.exp(middle), Interval(low, high), _verdict(low, high))


def _enough(a_ms: list[float], b_ms: list[float], rounds: int | None, seconds: float | None) -> bool:
    if rounds is not None:
        return len(a_ms) >= 2 * rounds
    return seconds is not None and sum(a_ms) + sum(b_ms) >= 1000 * seconds


def _verdict(low: float, high: float) -> Verdict:
    if low > 1 + _NEGLIGIBLE:
        return "slower"
    return "faster" if high < 1 / (1 + _NEGLIGIBLE) else "no difference seen"
