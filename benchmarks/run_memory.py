"""Peak memory of `unblur run`: it must not grow with the length of a clip, and 4K must fit an edge device.

    python -m benchmarks.run_memory --model lprn-s

Each run is a process of its own; the peak is what the kernel reports when it ends (maximum resident set size).
Expected: 100 and 400 frames of 720p within 5 percent of each other, 4K frames, by tiling, under 3 GiB.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.clip import write_clip
from benchmarks.command import Json, Model, NotMeasured, log, print_report, run, unblur
from benchmarks.figures import Figure, Report

EXPECTED_GROWTH_PERCENT = 5.0
EXPECTED_4K_GIB = 3.0
_SCATTER = 0.03  # by how much two equal runs differ: threads allocate in an order of their own
HD, UHD = (720, 1280), (2160, 3840)


def main(
    model: Model = "lprn-s",
    clip: Annotated[Path | None, typer.Option(help="Take the frames of this video; default synthetic.")] = None,
    short: int = 100,
    long: int = 400,
    frames_4k: int = 12,
    json: Json = False,
) -> None:
    """Measure the peaks; exit 1 if one is not as expected."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = peak_gib(model, write_clip(folder / "short.mp4", short, HD, clip))
        many = peak_gib(model, write_clip(folder / "long.mp4", long, HD, clip))
        large = peak_gib(model, write_clip(folder / "large.mp4", frames_4k, UHD))
    growth = Figure(
        f"growth from {short} to {long} frames",
        "%",
        100 * (many / few - 1),
        "lower",
        asked=EXPECTED_GROWTH_PERCENT,
    )
    figures = (growth, _peak(f"{long} frames", many), _peak(f"{frames_4k} frames of 4K", large, EXPECTED_4K_GIB))
    print_report(Report("run_memory", figures), json=json)


def _peak(name: str, gib: float, asked: float | None = None) -> Figure:
    return Figure(name, "GiB", gib, "lower", asked=asked)


def peak_gib(model: str, source: Path) -> float:
    """Maximum resident set size of one `unblur run`; an error if the run failed."""
    sink = source.with_name("sharp.mp4")
    command = unblur("run", model, "--source", str(source), "--sink", str(sink))
    to_stderr = [(os.POSIX_SPAWN_DUP2, 2, 1)]  # stdout is for our own document
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=to_stderr)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise NotMeasured(f"unblur run on {source.name} ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    gib = usage.ru_maxrss * unit / 2**30
    log(f"{source.stem}: {gib:.3f} GiB")
    return gib


if __name__ == "__main__":
    run(main)
