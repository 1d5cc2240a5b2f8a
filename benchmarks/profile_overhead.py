"""What a profile adds to the time it measures: its loop, with the sensors read, against a bare loop of `infer`.

    python -m benchmarks.profile_overhead

Both loops run in turn on one runner and the same batches, in stretches of a second; compared is the time of a whole
stretch over its inferences, so that what the profile does between two of them counts too. Expected: at most
1 percent. The interval is of 99 percent, as of every comparison.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from benchmarks.figures import Figure, Report
from benchmarks.parts import Json, Model, run, say, tell
from unblur.runtime.frames import Batch
from unblur.runtime.profile.comparison import compare, interleave
from unblur.runtime.profile.inputs import random_batches
from unblur.runtime.profile.loop import Control, Stopwatch, measure
from unblur.runtime.profile.request import size_from_text
from unblur.runtime.runner import Runner, open_runner
from unblur.runtime.telemetry.sampler import Telemetry

MOST_OVERHEAD_PERCENT = 1.0


def main(
    model: Model = "lprn-n",
    size: str = "180x320",
    seconds: Annotated[float, typer.Option(min=0.01, help="Of one stretch.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=6, help="Of two stretches of each loop.")] = 10,
    json: Json = False,
) -> None:
    """Tell the overhead; exit 1 above 1 percent."""
    with open_runner(model, device="cpu", quiet=True) as runner:
        batches = random_batches(runner.spec, size_from_text(size), 1).batches
        bare, profiled = _bare_loop(runner, batches, seconds), _profiled_loop(runner, batches, seconds)
        bare()
        profiled()
        bare_ms, profiled_ms = interleave(bare, profiled, rounds=rounds)
    comparison = compare(bare_ms, profiled_ms)
    say(f"{model} at {size}: {min(bare_ms):.3f} ms bare, {min(profiled_ms):.3f} ms profiled, the best stretches")
    low, high = comparison.interval.low, comparison.interval.high
    percent = (_percent(low), None if high is None else _percent(high))
    overhead = Figure(
        "overhead of a profile", "%", _percent(comparison.ratio), "lower", percent, asked=MOST_OVERHEAD_PERCENT
    )
    tell(Report("profile_overhead", (overhead,)), json=json)


def _bare_loop(runner: Runner, batches: Sequence[Batch], seconds: float) -> Callable[[], float]:
    """Mean ms of an inference in a loop of nothing else."""
    turn = itertools.cycle(batches)

    def stretch() -> float:
        count, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            runner.infer(next(turn))
            count += 1
        return elapsed * 1e3 / count

    return stretch


def _profiled_loop(runner: Runner, batches: Sequence[Batch], seconds: float) -> Callable[[], float]:
    """The same in the loop of a profile."""
    control = Control()
    stopwatch = Stopwatch(runner, batches, control.clock)

    def stretch() -> float:
        with Telemetry():
            series = measure(stopwatch, seconds, control)
        return series.ends_s[-1] * 1e3 / len(series.ends_s)

    return stretch


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


if __name__ == "__main__":
    run(main)
