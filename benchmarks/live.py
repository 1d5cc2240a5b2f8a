"""How live the live loop is: latency, overhead, and a deadline held on a device that slows down.

    python -m benchmarks.live --plot docs/anytime.png

Everything runs on a synthetic camera in real time. Expected: latency p99 of at most two frame times and one
inference for a network slower than the camera; at most 3 percent of overhead; at least 99 percent of the frames in
time while the device runs at half its speed for a third of the run. Wants a machine that does nothing else.
"""

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import typer

from benchmarks.command import Json, Model, print_report, run
from benchmarks.figures import Figure, Report, of_repeats
from unblur.runtime.frames import Batch
from unblur.runtime.loops.capture import ReconnectingCapture
from unblur.runtime.loops.ladder import Ladder
from unblur.runtime.loops.live_loop import FrameResult, LiveControls, run_live_loop
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.media.open_media import NullSink, open_source
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.profile.latency import Latency, summarise
from unblur.runtime.runner import Runner
from unblur.runtime.spec import ModelSpec, Precision

CAMERA_FPS = 30
FRAME_MS = 1000 / CAMERA_FPS
_PARTS = 10  # of a run, long enough to be independent of each other


@dataclass
class Throttled:
    """A runner on a device that can be made `slowdown` times slower."""

    runner: Runner
    slowdown: float = 1.0

    @property
    def spec(self) -> ModelSpec:
        return self.runner.spec

    @property
    def device(self) -> str:
        return self.runner.device

    @property
    def precision(self) -> Precision:
        return self.runner.precision

    def infer(self, batch: Batch) -> Batch:
        began_s = time.perf_counter()
        restored = self.runner.infer(batch)
        time.sleep((time.perf_counter() - began_s) * (self.slowdown - 1))
        return restored

    def close(self) -> None:
        self.runner.close()

    def __enter__(self) -> "Throttled":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Trace:
    """What happened to every frame of a run: seconds since its start, rung, late or not, and milliseconds: in the
    network, and from its capture until it goes to the sink."""

    began_s: float = field(default_factory=time.monotonic)
    times_s: list[float] = field(default_factory=list)
    rungs: list[int] = field(default_factory=list)
    elapsed_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    late: list[bool] = field(default_factory=list)

    def add(self, result: FrameResult) -> None:
        now_s = time.monotonic()
        self.times_s.append(now_s - self.began_s)
        self.rungs.append(result.restored.rung)
        self.elapsed_ms.append(result.restored.ms)
        self.latency_ms.append(1e3 * (now_s - result.captured_s))
        self.late.append(result.restored.late)

    @property
    def share_in_time(self) -> float:
        return 1 - statistics.fmean(self.late)

    def overheads(self) -> list[float]:
        """What passes beside the network over what passes in it, in each tenth of the run."""
        tenths = np.array_split(np.arange(1, len(self.times_s)), _PARTS)
        between_ms = 1e3 * np.diff(self.times_s, prepend=0)
        return [float(between_ms[tenth].sum() / np.take(self.elapsed_ms, tenth).sum() - 1) for tenth in tenths]

    def shares_in_time(self) -> list[float]:
        """Of the frames of each tenth of the run."""
        return [float(1 - np.mean(tenth)) for tenth in np.array_split(self.late, _PARTS)]


def main(
    model: Model = "lprn-s",
    fallback: Annotated[str, typer.Option(help="The model below it on the ladder.")] = "lprn-n",
    seconds: Annotated[float, typer.Option(min=5, help="Length of each of the three runs.")] = 60,
    plot: Annotated[Path | None, typer.Option(help="Draw the run with the deadline.")] = None,
    json: Json = False,
) -> None:
    """Measure three runs; exit 1 if a bound is missed."""
    print_report(
        Report("live", (*measure_latency(model, seconds), *measure_deadline(model, fallback, seconds, plot))),
        json=json,
    )


def measure_latency(model: str, seconds: float) -> tuple[Figure, ...]:
    """All steps, no deadline, on a frame size for which they take two to ten frame times."""
    trace = Trace()
    with Deblurrer(model) as deblur:
        size_hw = (720, 1280)
        _run(Ladder([deblur], size_hw), size_hw, seconds, LiveControls(), trace.add)
    latency, inference = summarise(trace.latency_ms), summarise(trace.elapsed_ms)
    overhead_percent = [100 * share for share in trace.overheads()]
    return (
        _p99("latency p99", latency, asked=2 * FRAME_MS + inference.p99),
        _p99("network p99", inference),
        of_repeats("overhead of the loop over the network", "%", overhead_percent, "lower", asked=3),
    )


def _p99(name: str, latency: Latency, asked: float | None = None) -> Figure:
    interval = latency.intervals["p99"]
    return Figure(name, "ms", latency.p99, "lower", (interval.low, interval.high), asked=asked)


def measure_deadline(model: str, fallback: str, seconds: float, plot: Path | None) -> tuple[Figure, ...]:
    """The ladder of both; in the middle third the device runs at half its speed. Then the model alone."""
    size_hw = (540, 960)
    with ExitStack() as stack:
        runners = [Throttled(stack.enter_context(open_runner(name))) for name in (fallback, model)]
        ladder = Ladder([Deblurrer(runner) for runner in runners], size_hw)
        deadline_ms = 1.35 * ladder.costs[-1].ms
        anytime, fixed = (
            _run_throttled(Ladder(ladder.rungs[first:], size_hw), runners, size_hw, seconds, deadline_ms)
            for first in (0, -1)
        )
    if plot is not None:
        _draw(plot, model, fallback, anytime, fixed, deadline_ms)
    return (
        _in_time("frames in time while the device slows down", anytime, asked=99),
        _in_time("the same without the fallback", fixed),
    )


def _in_time(name: str, trace: Trace, asked: float | None = None) -> Figure:
    return of_repeats(name, "%", [100 * share for share in trace.shares_in_time()], "higher", asked=asked)


def _run_throttled(
    ladder: Ladder, runners: list[Throttled], size_hw: tuple[int, int], seconds: float, deadline_ms: float
) -> Trace:
    trace = Trace()

    def watch(result: FrameResult) -> None:
        trace.add(result)
        in_middle = 1 / 3 < trace.times_s[-1] / seconds < 2 / 3
        for runner in runners:
            runner.slowdown = 2.0 if in_middle else 1.0

    _run(ladder, size_hw, seconds, LiveControls(deadline_ms=deadline_ms), watch)
    return trace


def _run(
    ladder: Ladder,
    size_hw: tuple[int, int],
    seconds: float,
    controls: LiveControls,
    on_result: Callable[[FrameResult], None],
) -> None:
    stats, stop = LoopStats(), threading.Event()
    source = f"test://moving?size={size_hw[0]}x{size_hw[1]}&fps={CAMERA_FPS}&blur=12"
    with ReconnectingCapture(lambda: open_source(source), stats) as capture, NullSink() as sink:
        threading.Timer(seconds, stop.set).start()
        run_live_loop(capture, ladder, sink, stats, controls=controls, stop=stop, on_result=on_result)


def _draw(path: Path, model: str, fallback: str, anytime: Trace, fixed: Trace, deadline_ms: float) -> None:
    """Two rows that share the time: milliseconds of every frame, with and without the ladder; the rung taken."""
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8, 4.6), sharex=True, height_ratios=(2, 1), layout="constrained"
    )
    for trace, label, colour in (
        (fixed, f"always {model}", "#c0504d"),
        (anytime, f"{model}, falling back to {fallback}", "#1f6f8b"),
    ):
        upper.plot(trace.times_s, trace.elapsed_ms, ".", markersize=2.5, color=colour, label=label)
    upper.axhline(deadline_ms, color="0.2", linewidth=1)
    upper.annotate(f"deadline {deadline_ms:.0f} ms", (0.995, deadline_ms), xycoords=("axes fraction", "data"),
                   ha="right", va="bottom", fontsize=8)  # fmt: skip
    upper.set_ylim(0, 2.4 * statistics.median(fixed.elapsed_ms))
    upper.set_ylabel("network, ms per frame")
    upper.legend(loc="upper left", frameon=False, markerscale=4, fontsize=8)
    upper.set_title(
        f"{model} while the device runs at half its speed: {anytime.share_in_time:.1%} of the frames in time, "
        f"{fixed.share_in_time:.1%} without the fallback",
        fontsize=9,
    )
    lower.step(anytime.times_s, anytime.rungs, where="post", color="#1f6f8b", linewidth=1)
    lower.set_yticks((1, 2), (fallback, model))
    lower.set_ylim(0.7, 2.3)
    lower.set_xlabel("seconds")
    end_s = anytime.times_s[-1]
    for axes in (upper, lower):
        axes.axvspan(end_s / 3, 2 * end_s / 3, color="0.93", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main)
