"""`unblur estimate` against the clock: every preset in ONNX Runtime, fp32, on this CPU.

    python -m benchmarks.estimate
    python -m benchmarks.estimate --presets lprn-s --presets srn --folder exports

The estimate is made from this machine's measured peaks, by the method that devices which are not here are estimated
by. Expected: the middle of its range is within a factor of 1.5 of the measured time for every preset, those that
the factors were fitted on (`benchmarks.estimate_fit`) and the others, which are told apart.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.estimate_presets import FITTED, exported, side_of
from benchmarks.figures import Report, of_repeats
from benchmarks.parts import Json, run, say, tell
from unblur.calibration.onnx_file import read_onnx
from unblur.export.devices import PeakRange
from unblur.export.estimate import estimate
from unblur.export.estimate_graph import network_at
from unblur.export.estimate_method import ONNX_RUNTIME
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.roofline import Peaks, measure_peaks
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

    @property
    def ratios(self) -> list[float]:
        """The middle of the estimate over each measured time."""
        return [(self.low_ms * self.high_ms) ** 0.5 / ms for ms in self.runs_ms]


def main(
    presets: Annotated[list[str] | None, typer.Option(help="Default all. Repeatable.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Runs of three frames each.")] = 4,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one a core.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep the exports here, for the next time.")] = None,
    json: Json = False,
) -> None:
    """Tell the worst ratio of estimated to measured; exit 1 above 1.5."""
    chosen = sorted(presets or PRESETS)
    for name in chosen:
        find_preset(name)
    peaks = measure_peaks(threads)
    say(f"peaks: {peaks.gflops['fp32']:.0f} GFLOP/s, {peaks.gbytes_per_s:.1f} GB/s, {peaks.source}")
    say(HEAD)
    trials = []
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept:
        for name, path in exported(chosen, Path(kept)):
            trials.append(attempt(name, path, peaks, repeats, threads))
            say(line(trials[-1]))
    figures = [
        of_repeats(f"worst ratio, {what}", "x", worst(group), "lower", asked=MOST_RATIO)
        for what, group in (
            ("presets of the fit", [trial for trial in trials if trial.fitted]),
            ("presets held out", [trial for trial in trials if not trial.fitted]),
        )
        if group
    ]
    tell(Report("estimate", tuple(figures), {"trials": [asdict(trial) for trial in trials]}), json=json)


HEAD = f"{'preset':20}  size  {'estimate, ms':>17}  {'measured':>8}  ratio"


def attempt(preset: str, path: Path, peaks: Peaks, repeats: int, threads: int | None) -> Trial:
    """Estimate a preset and run it."""
    side = side_of(preset)
    network = network_at(read_onnx(path), (side, side))
    found = estimate(network, ONNX_RUNTIME, PeakRange(peaks, peaks), "fp32")
    image = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    with OnnxRunner(path, threads=threads) as runner:
        runner.infer(image)
        runs_ms = [min(_ms(lambda: runner.infer(image)) for _ in range(_FRAMES)) for _ in range(repeats)]
    return Trial(preset, side, found.ms.low, found.ms.high, tuple(runs_ms), preset in FITTED)


def worst(trials: Sequence[Trial]) -> list[float]:
    """Of each run, the ratio of the preset that is furthest off, up or down."""
    return [
        max(max(ratio, 1 / ratio) for ratio in ratios) for ratios in zip(*(t.ratios for t in trials), strict=True)
    ]


def line(trial: Trial) -> str:
    """A row of the table."""
    measured = min(trial.runs_ms)
    ratio = trial.ratios[trial.runs_ms.index(measured)]
    verdict = "PASS" if max(ratio, 1 / ratio) <= MOST_RATIO else "FAIL"
    estimated = f"{trial.low_ms:7.1f} - {trial.high_ms:7.1f}"
    held_out = "" if trial.fitted else ", held out"
    return f"{trial.preset:20}  {trial.side:4}  {estimated}  {measured:8.1f}  {ratio:5.2f}  {verdict}{held_out}"


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    run(main)
