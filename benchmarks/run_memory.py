"""Peak memory of `unblur run`: it must not grow with the length of a clip, and 4K must fit an edge device.

    python -m benchmarks.run_memory --model lprn-s

Each run is a process of its own; the peak is what the kernel says of it when it ends (maximum resident set size).
Expected: 100 and 400 frames of 720p within 5 percent of each other, 4K frames, by tiling, under 3 GiB.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.clip import write_clip

EXPECTED_GROWTH = 0.05
EXPECTED_4K_GIB = 3.0
HD, UHD = (720, 1280), (2160, 3840)


def main(
    model: Annotated[str, typer.Option(help="A shipped preset, a bundle, or an .onnx file.")] = "lprn-s",
    clip: Annotated[Path | None, typer.Option(help="Take the frames of this video; default synthetic.")] = None,
    short: int = 100,
    long: int = 400,
    frames_4k: int = 12,
) -> None:
    """Print the peaks; exit 1 if one is not as expected."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = peak_gib(model, write_clip(folder / "short.mp4", short, HD, clip))
        many = peak_gib(model, write_clip(folder / "long.mp4", long, HD, clip))
        large = peak_gib(model, write_clip(folder / "large.mp4", frames_4k, UHD))
    growth = many / few - 1
    print(f"{short} frames: {few:.3f} GiB, {long} frames: {many:.3f} GiB, growth {growth:+.1%}; expected within 5%")
    print(f"{frames_4k} frames of 4K: {large:.3f} GiB; expected under {EXPECTED_4K_GIB:.0f} GiB")
    sys.exit(0 if abs(growth) <= EXPECTED_GROWTH and large < EXPECTED_4K_GIB else 1)


def peak_gib(model: str, source: Path) -> float:
    """Maximum resident set size of one `unblur run`; an error if the run failed."""
    sink = source.with_name("sharp.mp4")
    command = ["-m", "unblur.runtime.cli", "run", model, "--source", str(source), "--sink", str(sink)]
    process = os.posix_spawn(sys.executable, [sys.executable, *command], os.environ)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"unblur run on {source.name} ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return usage.ru_maxrss * unit / 2**30


if __name__ == "__main__":
    typer.run(main)
