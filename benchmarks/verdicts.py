"""How often a comparison is right on this machine: of a network with itself, and with 10 percent more of its work.

    python -m benchmarks.verdicts

Each trial opens the network twice, as `unblur profile A --baseline A` does, and compares the two, taken in turn.
One run is ten inferences; where B is to be slower, eleven. Expected: "no difference seen" and "slower" in at
least 95 of 100 trials each.
"""

import time
from collections.abc import Callable
from typing import Annotated

import typer
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.command import Json, Model, log, print_report, run
from benchmarks.figures import Figure, Report
from unblur.runtime.frames import Batch
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.profile.comparison import Comparison, Verdict, compare, interleave
from unblur.runtime.profile.measure import random_batches
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import parse_size_hw

LEAST_PERCENT = 95.0
_INFERENCES = 10
_CASES: dict[str, tuple[int, Verdict]] = {
    "A against A": (_INFERENCES, "no difference seen"),
    "A against A + 10 %": (_INFERENCES + 1, "slower"),
}


def main(
    model: Model = "lprn-n",
    size: str = "16x16",
    trials: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 100,
    rounds: Annotated[int, typer.Option(min=6, help="Of two runs of each, in one trial.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of an inference.")] = 1,
    json: Json = False,
) -> None:
    """Measure how often each verdict was right; exit 1 below 95 of 100."""
    with open_runner(model, RunnerOptions(device="cpu", threads=threads, quiet=True)) as runner:
        batch = random_batches(runner.spec, parse_size_hw(size), 1)[0]
    ratios: dict[str, list[float]] = {case: [] for case in _CASES}
    right = dict.fromkeys(_CASES, 0)
    for number in range(1, trials + 1):
        for case, (inferences, expected) in _CASES.items():
            comparison = _trial(model, batch, inferences, rounds, threads, seed=number)
            ratios[case].append(comparison.ratio)
            right[case] += comparison.verdict == expected
        log(f"{number} of {trials}: " + ", ".join(f"{case} right {count}" for case, count in right.items()))
    figures = tuple(_figure(case, count, trials) for case, count in right.items())
    print_report(Report("verdicts", figures, {"ratios": ratios}), json=json)


def _trial(model: str, batch: Batch, inferences: int, rounds: int, threads: int, *, seed: int) -> Comparison:
    """Compare ten inferences with `inferences` of them, each in a session of its own."""
    with (
        open_runner(model, RunnerOptions(device="cpu", threads=threads, quiet=True)) as a,
        open_runner(model, RunnerOptions(device="cpu", threads=threads, quiet=True)) as b,
    ):
        run_a, run_b = _timed(a, batch, _INFERENCES), _timed(b, batch, inferences)
        run_a()
        run_b()
        return compare(*interleave(run_a, run_b, rounds=rounds, seed=seed))


def _timed(runner: Runner, batch: Batch, inferences: int) -> Callable[[], float]:
    """Milliseconds of so many inferences in a row."""

    def run_ms() -> float:
        began = time.perf_counter()
        for _ in range(inferences):
            runner.infer(batch)
        return 1e3 * (time.perf_counter() - began)

    return run_ms


def _figure(case: str, right: int, trials: int) -> Figure:
    interval = stats.binomtest(right, trials).proportion_ci()
    low, high = float(100 * interval.low), float(100 * interval.high)
    return Figure(f"right verdicts, {case}", "%", 100 * right / trials, "higher", (low, high), asked=LEAST_PERCENT)


if __name__ == "__main__":
    run(main)
