"""`unblur calibrate`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unblur.calibration import cli_lint, cli_table
from unblur.runtime.atomic import atomic_file
from unblur.runtime.console import print_json, progress, stderr
from unblur.runtime.errors import BadInput, needs_extra

if TYPE_CHECKING:
    from unblur.calibration.judge import Cost
    from unblur.calibration.quantize import Quantized
    from unblur.calibration.sample import Sample
    from unblur.calibration.table import CalibrationTable

METHODS = ("minmax",)
_JUDGED_PICTURES = 8


def register(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command("calibrate")(calibrate)
    cli_table.register(app)
    cli_lint.register(app)


def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An fp32 model from `unblur export`.")],
    images: Annotated[Path, typer.Option(help="Folder of pictures, or of pairs (the blurred side is used).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The INT8 model to write.")],
    method: Annotated[str, typer.Option(help=f"How ranges are chosen: {', '.join(METHODS)}.")] = "minmax",
    blur: Annotated[bool, typer.Option("--blur", help="The pictures are sharp: shake each one first.")] = False,
    table: Annotated[Path | None, typer.Option(help="Also write the table of ranges, as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Make the INT8 form of a model, with ranges measured on pictures like those it will see.

    Convolutions become INT8 but for the first, the last and the attention gates; the rest stays float32 here,
    `unblur deploy` makes it float16.
    """
    if method not in METHODS:
        raise BadInput(f"unknown method '{method}'; this version has: {', '.join(METHODS)}")
    with needs_extra("export"):
        from unblur.calibration.onnx_file import check_onnx_name, onnx_bytes
        from unblur.calibration.sample import find_sample
    check_onnx_name(output)
    started_s = time.monotonic()
    sample = find_sample(images, blurred=blur)
    with atomic_file(output) as temporary:
        quantized = _quantize(model, sample)
        temporary.write_bytes(onnx_bytes(quantized.model))
        cost = _judge(model, temporary, sample)
    if table is not None:
        with atomic_file(table) as temporary:
            temporary.write_text(quantized.table.to_json())
    if json:
        seconds = round(time.monotonic() - started_s, 2)
        print_json({**_document(quantized.table, cost), "seconds": seconds, "bytes": output.stat().st_size})
    else:
        stderr.print(f"{output}: {_sentence(quantized.table, cost)}")


def _quantize(model: Path, sample: "Sample") -> "Quantized":
    from unblur.calibration.onnx_file import read_onnx
    from unblur.calibration.quantize import quantize_minmax

    fp32 = read_onnx(model)
    with progress("pictures") as bar:
        task = bar.add_task("calibrating", total=len(sample), note="")
        return quantize_minmax(fp32, sample, lambda: bar.advance(task))


def _judge(fp32: Path, int8: Path, sample: "Sample") -> "Cost":
    """With graph optimisation off for INT8: Q/DQ evaluated in float is what an engine computes."""
    from unblur.calibration.judge import measure_cost
    from unblur.runtime.onnx_runner import OnnxRunner

    judged = sample.spread(_JUDGED_PICTURES)
    with (
        progress("pictures") as bar,
        OnnxRunner(fp32) as reference,
        OnnxRunner(int8, graph_optimization=False) as candidate,
    ):
        task = bar.add_task("judging", total=len(judged), note="")
        return measure_cost(reference, candidate, judged, lambda: bar.advance(task))


def _document(table: "CalibrationTable", cost: "Cost") -> dict[str, object]:
    return {
        "method": table.method,
        "images": len(table.images),
        "tensors": len(table.ranges),
        "peak_rss_mb": _peak_rss_mb(),
        "delta_db": round(cost.delta_db, 4),
        "parity_db": round(cost.parity_db, 2),
        "float": dict(table.kept),
    }


def _sentence(table: "CalibrationTable", cost: "Cost") -> str:
    return (
        f"INT8, {len(table.ranges)} activations calibrated on {len(table.images)} pictures; "
        f"{cost.delta_db:+.3f} dB against float32, {cost.parity_db:.1f} dB from it at worst, "
        f"on {cost.pictures} shaken pictures"
    )


def _peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB; Linux counts in KiB, macOS in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
