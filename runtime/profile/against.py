"""Two models measured in turn on one device, so that neither gets its better minutes."""

from unblur.runtime.profile.comparison import compare, interleave
from unblur.runtime.profile.document import Against, Percentiles, intervals_of
from unblur.runtime.profile.latency import summarise
from unblur.runtime.profile.loop import Control
from unblur.runtime.profile.runner import Plan, ready_to_measure
from unblur.runtime.runner import Runner

LEAST_ROUNDS = 6
"""Of two runs of each model: what `compare` takes at least."""


def profile_against(runner: Runner, other: Runner, plan: Plan, *, model: str, control: Control) -> Against | None:
    """Compare two runners at the size of `plan`, for twice its seconds, since two share them.

    model: what the document calls `other`.
    None if it was stopped before there was enough to compare.
    """
    first, second = (ready_to_measure(each, plan, control) for each in (runner, other))
    times_ms: list[float] = []
    other_ms: list[float] = []
    began, done = control.clock(), 0.0
    while (done < 1 or len(times_ms) < 2 * LEAST_ROUNDS) and not control.stop.is_set():
        round_ms, other_round_ms = interleave(first, second, rounds=1, seed=len(times_ms))
        times_ms += round_ms
        other_ms += other_round_ms
        done = (control.clock() - began) / (2e9 * plan.seconds)
        control.watch("in turn", min(done, 1.0))
    if len(times_ms) < 2 * LEAST_ROUNDS:
        return None
    comparison, latency = compare(times_ms, other_ms), summarise(other_ms)
    return Against(
        model=model,
        precision=other.precision,
        steps=other.spec.steps,
        device=other.device,
        samples=latency.samples,
        latency_ms=Percentiles.of(latency),
        intervals_ms=intervals_of(latency),
        ratio=comparison.ratio,
        ratio_interval=(comparison.interval.low, comparison.interval.high),
        verdict=comparison.verdict,
    )
