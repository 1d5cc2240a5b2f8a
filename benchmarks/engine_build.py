"""Seconds and megabytes of RTX engines, per preset and precision; needs no GPU.

    python -m benchmarks.engine_build lprn-s --size 720x1280 --target rtx-sm86

Prints a Markdown table as it goes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.command import Json, log, print_report, run
from benchmarks.figures import Figure, Report, of_repeats
from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import calibrate
from unblur.calibration.onnx_model import write_onnx
from unblur.export.build import BuildRequest, build_engines
from unblur.export.engine_from_onnx import Source, read_source, targets_from_text
from unblur.export.fp16 import fp16_from_fp32, int8_fp16_from_int8
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.images import write_image
from unblur.runtime.model.golden import golden_frame
from unblur.runtime.tensorrt.engine_file import EngineRecord
from unblur.train.checkpoint import load_checkpoint, shipped_checkpoint

PRESETS = ("lprn-n", "lprn-s")


def main(
    presets: Annotated[list[str] | None, typer.Argument(help="Default: all that ship.")] = None,
    size: str = "720x1280",
    target: str = "rtx-sm86",
    repeats: Annotated[int, typer.Option(min=2, help="Builds of each engine.")] = 3,
    json: Json = False,
) -> None:
    """Build every precision of every preset and print a row for each."""
    log("| preset | precision | steps | build s | engine MB | ONNX MB |\n|-|-|-:|-:|-:|-:|")
    figures: list[Figure] = []
    for preset in presets or PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            for source in sources(preset, Path(folder)):
                request = BuildRequest((source,), targets_from_text(target), Path(folder), (size,), force=True)
                builds = [engine.record for _ in range(repeats) for engine in build_engines(request)]
                figures += figures_of(preset, source, builds)
                log(row(preset, source, figures[-2].value, builds[0]))
    print_report(Report("engine_build", tuple(figures)), json=json)


def figures_of(preset: str, source: Source, builds: Sequence[EngineRecord]) -> tuple[Figure, Figure]:
    """Seconds and size; an engine carries times and names, so that its size is not the same to the byte."""
    name, megabytes = f"{preset} {source.precision}", builds[0].engine_bytes / 1e6
    seconds = [build.seconds for build in builds]
    return (
        of_repeats(f"{name} build", "s", seconds, "lower"),
        Figure(f"{name} engine", "MB", megabytes, "lower"),
    )


def sources(preset: str, folder: Path) -> Iterator[Source]:
    """The network of a preset as fp32, fp16 and INT8, written into `folder`."""
    for turns in (0, 2):
        write_image(folder / f"frame-{turns}.png", np.rot90(golden_frame(), turns))
    fp32 = onnx_from_network(load_checkpoint(shipped_checkpoint(preset)))
    int8 = calibrate(fp32, find_sample(folder)).model
    for name, model in {"fp32": fp32, "fp16": fp16_from_fp32(fp32), "int8": int8_fp16_from_int8(int8)}.items():
        write_onnx(folder / f"{name}.onnx", model)
        yield read_source(folder / f"{name}.onnx")


def row(preset: str, source: Source, seconds: float, record: EngineRecord) -> str:
    """One line of the table."""
    megabytes = f"{record.engine_bytes / 1e6:.2f} | {len(source.data) / 1e6:.2f}"
    return f"| {preset} | {source.precision} | {source.spec.steps} | {seconds:.1f} | {megabytes} |"


if __name__ == "__main__":
    run(main)
