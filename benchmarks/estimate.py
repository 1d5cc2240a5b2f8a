"""`unblur estimate` against the clock: every preset in ONNX Runtime, fp32, on this CPU.

    python -m benchmarks.estimate
    python -m benchmarks.estimate --presets lprn-s --presets srn --folder exports

The estimate is made from this machine's measured peaks, by the method that devices which are not here are estimated
by. Expected: the middle of its range is within a factor of 1.5 of the measured time for every preset, those that
the factors were fitted on (`benchmarks.estimate_fit`) and the others, which are told apart.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.estimate_presets import FITTED, exported, side_of
from benchmarks.figures import Figure, Report
from benchmarks.parts import Json, run, say, tell
from unblur.calibration.onnx_file import read_onnx
from unblur.export.estimate.devices import PeakRange
from unblur.export.estimate.estimate import Span, estimate
from unblur.export.estimate.graph import network_at
from unblur.export.estimate.method import ONNX_RUNTIME
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.profile.roofline import Peaks, measure_peaks
from unblur.train.networks import PRESETS, find_preset

MOST_RATIO = 1.5
_FRAMES = 3


@dataclass(frozen=True)
class Trial:
    """One preset. low_ms, high_ms: the estimate. runs_ms: the fastest frame of each run. fitted: see `FITTED`."""

    preset: str
    side: int
    low_ms: float
    high_ms: float
    runs_ms: tuple[float, ...]
    fitted: bool

    def ratio(self, run: int | None = None) -> float:
        """The middle of the estimate over the time of one run, over the best time without one."""
        return Span(self.low_ms, self.high_ms).middle / (min(self.runs_ms) if run is None else self.runs_ms[run])


def main(
    presets: Annotated[list[str] | None, typer.Option(help="Default all. Repeatable.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Runs of three frames each.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one a core.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep the exports here, for the next time.")] = None,
    json: Json = False,
) -> None:
    """Tell the worst ratio of estimated to measured; exit 1 above 1.5."""
    chosen = sorted(presets or PRESETS)
    for name in chosen:
        find_preset(name)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept:
        files = {}
        for name, file in exported(chosen, Path(kept)):  # all of them first: exports would disturb the clock
            files[name] = file
            say(f"exported {name}")
        rounds = [measure(files, threads) for _ in range(repeats)]
        peaks = highest([found for found, _ in rounds])
        trials = [trial(name, files[name], peaks, [times_ms[name] for _, times_ms in rounds]) for name in chosen]
    say(f"peaks: {peaks.gflops['fp32']:.0f} GFLOP/s, {peaks.gbytes_per_s:.1f} GB/s, {peaks.source}")
    say("\n".join([HEAD, *map(line, trials)]))
    groups = {
        "presets of the fit": [found for found in trials if found.fitted],
        "presets held out": [found for found in trials if not found.fitted],
    }
    figures = [worst(what, group, repeats) for what, group in groups.items() if group]
    tell(Report("estimate", tuple(figures), {"trials": [asdict(found) for found in trials]}), json=json)


def measure(files: Mapping[str, Path], threads: int | None) -> tuple[Peaks, dict[str, float]]:
    """One run: the peaks, and the fastest of three frames of every preset in ms."""
    peaks, times_ms = measure_peaks(threads), {}
    for name, file in files.items():
        side = side_of(name)
        image = np.random.default_rng(0).random((1, 3, side, side), np.float32)
        with OnnxRunner(file, threads=threads) as runner:
            runner.infer(image)
            times_ms[name] = min(_ms(partial(runner.infer, image)) for _ in range(_FRAMES))
        say(f"ran {name}: {times_ms[name]:.1f} ms")
    return peaks, times_ms


def highest(runs: Sequence[Peaks]) -> Peaks:
    """The highest peaks of all runs, for nothing but other programs makes them lower."""
    fp32 = max(peaks.gflops["fp32"] for peaks in runs)
    return Peaks({"fp32": fp32}, max(peaks.gbytes_per_s for peaks in runs), runs[0].source)


def trial(preset: str, file: Path, peaks: Peaks, runs_ms: Sequence[float]) -> Trial:
    """The estimate for a preset beside its times."""
    side = side_of(preset)
    network = network_at(read_onnx(file), (side, side))
    ms = estimate(network, ONNX_RUNTIME, PeakRange(peaks, peaks), "fp32").ms
    return Trial(preset, side, ms.low, ms.high, tuple(runs_ms), preset in FITTED)


def worst(what: str, trials: Sequence[Trial], runs: int) -> Figure:
    """How far the estimate of the worst preset is off, up or down, by its best time; the interval has every run."""
    best, *single = (max(_factor(found.ratio(run)) for found in trials) for run in (None, *range(runs)))
    interval = (min(best, *single), max(best, *single))
    return Figure(f"worst ratio, {what}", "x", best, "lower", interval, asked=MOST_RATIO)


HEAD = f"{'preset':20}  size  {'estimate, ms':>17}  {'measured':>8}  ratio"


def line(found: Trial) -> str:
    """A row of the table, by the best time."""
    verdict = "PASS" if _factor(found.ratio()) <= MOST_RATIO else "FAIL"
    estimated = f"{found.low_ms:7.1f} - {found.high_ms:7.1f}"
    verdict += "" if found.fitted else ", held out"
    measured = f"{min(found.runs_ms):8.1f}  {found.ratio():5.2f}"
    return f"{found.preset:20}  {found.side:4}  {estimated}  {measured}  {verdict}"


def _factor(ratio: float) -> float:
    return max(ratio, 1 / ratio)


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    run(main)
