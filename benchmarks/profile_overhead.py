"""What a profile adds to the time it measures: its loop, with the sensors read, against a bare loop of `infer`.

    python -m benchmarks.profile_overhead

Both loops run in turn on the same batches, in stretches of a second; what counts is the time of a whole stretch
over its inferences, so that what the profile does between two of them is in it. They do so twice:

    own work            over a network that takes no time, so that only the loops do; as a share of a real inference
    overhead            over the real network: all there is, but a machine whose speed wanders hides one percent

Expected: at most 1 percent, of the first. The interval of the second is of 99 percent, as of every comparison.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Annotated, cast

import typer

from benchmarks.command import Json, Model, log, print_report, run
from benchmarks.figures import Figure, Report, of_repeats
from unblur.runtime.frames import Batch
from unblur.runtime.machine.telemetry import Telemetry
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.profile.comparison import compare, interleave
from unblur.runtime.profile.measure import Control, Stopwatch, measure, random_batches
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import parse_size_hw

MOST_OVERHEAD_PERCENT = 1.0
_REPEATS = 10


def main(
    model: Model = "lprn-n",
    size: str = "180x320",
    seconds: Annotated[float, typer.Option(min=0.01, help="Of one stretch.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=6, help="Of two stretches of each loop.")] = 10,
    json: Json = False,
) -> None:
    """Measure the overhead; exit 1 above 1 percent."""
    with open_runner(model, RunnerOptions(device="cpu", quiet=True)) as runner:
        batches = random_batches(runner.spec, parse_size_hw(size), 1)
        bare, profiled = _bare_loop(runner, batches, seconds), _profiled_loop(runner, batches, seconds)
        bare()
        profiled()
        bare_ms, profiled_ms = interleave(bare, profiled, rounds=rounds)
    own_ms = _own_work(batches, min(seconds, 0.2))
    comparison = compare(bare_ms, profiled_ms)
    log(f"{model} at {size}: {min(bare_ms):.3f} ms bare, {min(profiled_ms):.3f} ms profiled, the best stretches")
    low, high = comparison.interval.low, comparison.interval.high
    percent = (_percent(low), None if high is None else _percent(high))
    own = [100 * ms / min(bare_ms) for ms in own_ms]
    figures = (
        of_repeats("own work of a profile, of an inference", "%", own, "lower", asked=MOST_OVERHEAD_PERCENT),
        Figure("overhead of a profile", "%", _percent(comparison.ratio), "lower", percent),
    )
    print_report(Report("profile_overhead", figures), json=json)


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
    stopwatch = Stopwatch(runner.infer, batches, control.clock)

    def stretch() -> float:
        with Telemetry():
            series = measure(stopwatch, seconds, control)
        return series.ends_s[-1] * 1e3 / len(series.ends_s)

    return stretch


class _Idle:
    """A network that takes no time."""

    def infer(self, batch: Batch) -> Batch:
        return batch


def _own_work(batches: Sequence[Batch], seconds: float) -> list[float]:
    """Ms that the loop of a profile takes for an inference beyond what the bare one does, of several stretches."""
    idle = cast(Runner, _Idle())  # nothing but `infer` is called
    bare, profiled = _bare_loop(idle, batches, seconds), _profiled_loop(idle, batches, seconds)
    return [profiled() - bare() for _ in range(_REPEATS)]


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


if __name__ == "__main__":
    run(main)
