"""Time and peak memory of one ONNX file, in a process that does nothing else.

    python -m benchmarks.onnx_cost lprn-s.onnx --size 720x1280 --repeats 3

Prints one JSON document: the milliseconds of each frame after one that warms up, and the peak of the resident
memory, Python and ONNX Runtime included. Linux only, whose kernel keeps that peak for each process.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.memory import peak_mib
from unblur.runtime.frames import Padding
from unblur.runtime.model.onnx_runner import OnnxRunner


def main(
    model: Annotated[Path, typer.Argument(help="An .onnx file that unblur wrote.")],
    size: Annotated[str, typer.Option(help="Height x width of the frames.")] = "720x1280",
    repeats: Annotated[int, typer.Option(min=1, help="Frames to time at least.")] = 3,
    seconds: Annotated[float, typer.Option(help="Time frames for so long at least.")] = 0,
) -> None:
    """Print {"ms": [...], "peak_gib": ...}."""
    height, width = map(int, size.split("x"))
    with OnnxRunner(model) as runner:
        padded_hw = Padding.to_multiple((height, width), runner.spec.multiple_of).padded_hw
        batch = np.random.default_rng(0).random((1, 3, *padded_hw), np.float32)
        runner.infer(batch)
        times_ms: list[float] = []
        while len(times_ms) < repeats or sum(times_ms) < 1000 * seconds:
            times_ms.append(_ms(runner, batch))
    print(json.dumps({"ms": times_ms, "peak_gib": peak_mib() / 1024}))


def _ms(runner: OnnxRunner, batch: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> float:
    began = time.perf_counter()
    runner.infer(batch)
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    typer.run(main)
