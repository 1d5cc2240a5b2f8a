"""Run the benchmarks one after the other, each in a process of its own.

    python -m benchmarks                      all of them; `make bench` does the same
    python -m benchmarks run_overhead live    these
    python -m benchmarks --list               what there is, and about how long it takes
    python -m benchmarks --quick              on less, to see that they run: ignore the figures

Wants a machine that does nothing else. To compare two commits, keep what a benchmark prints with --json.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.command import NotMeasured, log, run
from unblur.runtime.console import stdout

ROOT = Path(__file__).parents[1]
_DATA = "../shared/data"


@dataclass(frozen=True)
class Benchmark:
    """usual, quick: options of the two ways to run it; quick None leaves it out. minutes: of the usual one."""

    what: str
    minutes: float
    usual: str = ""
    quick: str | None = None


BENCHMARKS = {
    "machine": Benchmark("speed of a matrix product and a copy: how fast the machine is now", 0.2, quick=""),
    "run_overhead": Benchmark(
        "frame rate of `unblur run` over a bare loop of session.run",
        2.5,
        "--frames 12 --repeats 4",
        "--model lprn-n --height 360 --width 640 --frames 10 --repeats 3",
    ),
    "profile_overhead": Benchmark(
        "what `unblur profile` adds to the time it measures", 0.8, "", "--seconds 0.5 --rounds 6"
    ),
    "run_memory": Benchmark(
        "peak memory of `unblur run`: long clips, 4K",
        1.8,
        "--model lprn-n --short 50 --long 200 --frames-4k 4",
        "--model lprn-n --short 10 --long 30 --frames-4k 1",
    ),
    "live": Benchmark(
        "latency of the live loop, its overhead, frames in time on a device that slows down",
        2.5,
        "--seconds 45",
        "--seconds 10",
    ),
    "preview_cost": Benchmark("what four viewers of the preview cost", 2.2, "", "--seconds 4 --repeats 3"),
    "torture": Benchmark("odd images and videos through one run: kept, or named", 0.3, quick=""),
    "soak": Benchmark("memory and reconnections with a camera that fails every minute", 3.2, "--minutes 3"),
    "int8": Benchmark(
        "INT8 against ONNX Runtime's quantiser: loss, share, memory, time",
        3,
        f"--images {_DATA}/stills_calibration --pairs {_DATA}/gopro_test --rivals ort:percentile:tensorrt",
    ),
    "engine_build": Benchmark("seconds and megabytes of TensorRT-RTX engines", 1.5, "", "lprn-n --size 96x160"),
    "systems": Benchmark(
        "time and memory of a frame, with random weights",
        1.5,
        "--size 180x320 --systems lprn-n --systems lprn-s --systems msrm-dffm --systems pix2pix",
        "--size 180x320 --systems lprn-n",
    ),
    "train_step": Benchmark(
        "time of a training step over that of a bare forward and backward",
        3,
        "",
        "lprn-n --iterations 20 --repeats 2",
    ),
    "quality": Benchmark("gain of lprn-s in dB on real frames and shaken photographs", 2, f"lprn-s --data {_DATA}"),
    "own_network": Benchmark(
        "NAFNet, MIMO-UNet and DMPHN through every command; skips those whose code is not given", 0.1
    ),
    "verdicts": Benchmark("how often a comparison of two models is right", 1.5, "--trials 40", "--trials 5"),
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which; default all.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List them, with the minutes each takes.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="On less, where a benchmark can do with less.")] = False,
) -> None:
    """Run benchmarks. Exit code 0 if every bound is kept, 1 if one is missed, 2 if one could not be measured."""
    if show_list:
        stdout.print(_listed())
        return
    codes = {name: _run(name, options) for name, options in _chosen(names or (), quick=quick).items()}
    missed, failed = ([name for name, code in codes.items() if code == wanted] for wanted in (1, 2))
    log(f"{len(codes)} run; bounds missed: {', '.join(missed) or 'none'}; failed: {', '.join(failed) or 'none'}")
    raise typer.Exit(max(codes.values()))


def _chosen(names: Sequence[str], *, quick: bool) -> dict[str, list[str]]:
    """Name -> options. NotMeasured for an unknown name, or one without a quick form where that is asked for."""
    for name in names:
        if name not in BENCHMARKS:
            raise NotMeasured(f"there is no benchmark '{name}', expected one of {', '.join(BENCHMARKS)}")
        if quick and BENCHMARKS[name].quick is None:
            raise NotMeasured(f"'{name}' has no quick form; leave --quick out")
    chosen = {name: BENCHMARKS[name] for name in names or BENCHMARKS}
    options = {name: one.quick if quick else one.usual for name, one in chosen.items()}
    return {name: typed.split() for name, typed in options.items() if typed is not None}


def _run(name: str, options: Sequence[str]) -> int:
    """The exit code of `python -m benchmarks.NAME`, 2 for any that is not 0 or 1; it prints what it measures."""
    log(f"{name}, about {BENCHMARKS[name].minutes:g} min")
    code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], cwd=ROOT, check=False).returncode
    return code if code in (0, 1) else 2


def _listed() -> Table:
    listed = Table("benchmark", "min", "quick", "measures", show_footer=True)
    for name, one in BENCHMARKS.items():
        listed.add_row(name, f"{one.minutes:g}", "" if one.quick is None else "yes", one.what)
    listed.columns[0].footer = "all"
    listed.columns[1].footer = f"{sum(one.minutes for one in BENCHMARKS.values()):.0f}"
    return listed


if __name__ == "__main__":
    run(main)
