"""All systems side by side in ONNX Runtime: parameters, GFLOP, time and memory of one frame, at fp32.

    python -m benchmarks.systems --output systems
    python -m benchmarks.systems --systems lprn --systems srn --size 180x320

Every preset is exported with random weights, on which neither time nor memory depends, and runs in several
processes of its own. Writes systems.md and systems.json. The share of the peak is the GFLOP/s of the
network over those of a large float32 matrix product in the same runtime.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps, loads
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import typer
from onnx import TensorProto, helper

from benchmarks.command import Json, NotMeasured, log, output_of, print_report, run
from benchmarks.figures import Figure, Report, of_repeats
from unblur.calibration.onnx_model import write_onnx
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.files import atomic_file
from unblur.train.networks import PRESETS, build_network, count_parameters
from unblur.train.networks.base import gflop

GEMM_SIDE = 4096
_GEMM_REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """What one preset costs at one size; error: why there are no figures.

    ms: the mean of `runs_ms`, each the median of the frames of one process.
    """

    preset: str
    system: str
    parameters: int
    gflop: float
    ms: float | None = None
    runs_ms: tuple[float, ...] = ()
    peak_share: float | None = None
    peak_gib: float | None = None
    error: str = ""


def main(
    systems: Annotated[list[str] | None, typer.Option(help="Systems or presets; default all. Repeatable.")] = None,
    size: Annotated[str, typer.Option(help="Height x width of the frame.")] = "720x1280",
    repeats: Annotated[int, typer.Option(min=2, help="Processes of each preset.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder for systems.md and systems.json.")] = None,
    json: Json = False,
) -> None:
    """Measure preset by preset, lightest first, and print the table as it grows."""
    chosen = [name for name, preset in PRESETS.items() if not systems or {name, preset.system} & set(systems)]
    if not chosen:
        raise NotMeasured(f"no such system; there are {', '.join(sorted({p.system for p in PRESETS.values()}))}")
    peak_gflops = matrix_product_gflops()
    title = (
        f"ONNX Runtime {onnxruntime.__version__}, {size}, fp32; a matrix product reaches {peak_gflops:.0f} GFLOP/s"
    )
    log(f"{title}\n\n{HEAD}")
    costs: list[Cost] = []
    for cost in sorted((describe(name, size) for name in chosen), key=lambda cost: cost.gflop):
        costs.append(measure(cost, size, repeats, peak_gflops))
        log(line(costs[-1]))
        if out is not None:  # after each, since the heaviest take minutes
            write(out, title, peak_gflops, costs)
    figures = tuple(figure for cost in costs if cost.runs_ms for figure in figures_of(cost))
    print_report(
        Report("systems", figures, {"size": size, "peak_gflops": peak_gflops, "presets": costs}), json=json
    )


HEAD = """\
| preset | parameters | GFLOP | ms per frame | share of peak | peak memory |
|-|-:|-:|-:|-:|-:|"""


def describe(preset: str, size: str) -> Cost:
    """What can be counted without running it."""
    height, width = map(int, size.split("x"))
    network = build_network(preset)
    parameters = count_parameters(network)
    return Cost(preset, PRESETS[preset].system, parameters, gflop(network, (height, width)))


def measure(cost: Cost, size: str, repeats: int, peak_gflops: float) -> Cost:
    """Export the preset and run it in processes of its own, which may be killed for their memory."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{cost.preset}.onnx"
        write_onnx(path, onnx_from_network(build_network(cost.preset)))
        options = ["--size", size, "--repeats", "1", "--seconds", "0.5"]
        command = [sys.executable, "-m", "benchmarks.onnx_cost", str(path), *options]
        try:
            runs = [loads(output_of(command)) for _ in range(repeats)]
        except NotMeasured as error:
            return replace(cost, error=str(error))
    runs_ms = tuple(statistics.median(found["ms"]) for found in runs)
    ms, peak_gib = statistics.fmean(runs_ms), max(found["peak_gib"] for found in runs)
    return replace(
        cost, ms=ms, runs_ms=runs_ms, peak_share=cost.gflop / (ms / 1000) / peak_gflops, peak_gib=peak_gib
    )


def figures_of(cost: Cost) -> tuple[Figure, Figure]:
    """Time and memory of a preset that could be run."""
    memory_gib = cost.peak_gib or 0
    return (
        of_repeats(cost.preset, "ms", cost.runs_ms, "lower"),
        Figure(f"{cost.preset} memory", "GiB", memory_gib, "lower"),
    )


def matrix_product_gflops(side: int = GEMM_SIDE) -> float:
    """GFLOP/s of the best of three products of two square float32 matrices in ONNX Runtime."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (side, side)) for name in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "gemm", tensors[:2], tensors[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    matrices = {name: rng.random((side, side), np.float32) for name in ("a", "b")}
    seconds = []
    for _ in range(_GEMM_REPEATS + 1):
        began = time.perf_counter()
        session.run(None, matrices)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds[1:]) / 1e9


def line(cost: Cost) -> str:
    """A row of the table."""
    start = f"| {cost.preset} | {cost.parameters:,} | {cost.gflop:,.1f} | "
    if cost.ms is None or cost.peak_share is None or cost.peak_gib is None:
        return f"{start}{cost.error} | | |"
    return f"{start}{cost.ms:,.0f} | {cost.peak_share:.0%} | {cost.peak_gib:.2f} GiB |"


def write(folder: Path, title: str, peak_gflops: float, costs: Sequence[Cost]) -> None:
    """Write the table and the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "systems.md") as temporary:
        temporary.write_text("\n".join([title, "", HEAD, *map(line, costs)]) + "\n")
    document = {"title": title, "peak_gflops": peak_gflops, "presets": [asdict(cost) for cost in costs]}
    with atomic_file(folder / "systems.json") as temporary:
        temporary.write_text(dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
