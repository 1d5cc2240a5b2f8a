"""`unblur export`: a network as ONNX, compared with torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unblur.export.onnx_file import export_onnx
from unblur.runtime.cli.options import JsonOption, StepsOption, output_option
from unblur.runtime.console import print_json, progress, stderr
from unblur.runtime.quality.verify_report import finite_db
from unblur.train.checkpoint import load_checkpoint, resolve_checkpoint


def export(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="A shipped preset (lprn-s) or a checkpoint.")],
    output: Annotated[Path, output_option("The .onnx file to write.")],
    steps: StepsOption = None,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Type of weights and arithmetic.")] = "fp32",
    json: JsonOption = False,
) -> None:
    """Write a network as ONNX, for any batch and size, and check that it still computes the same."""
    network = load_checkpoint(resolve_checkpoint(preset), steps=steps)
    with progress() as bar:
        bar.add_task("exporting", total=None, note="")
        exported = export_onnx(network, output=output, precision=precision)
    parity_db = finite_db(exported.parity.psnr_db)
    if json:
        print_json({"nodes": exported.nodes, "bytes": exported.bytes, "parity_db": parity_db})
    else:
        stderr.print(
            f"{output}: {precision}, {network.spec.steps} steps, {exported.nodes} nodes, {exported.bytes:,} bytes, "
            f"{parity_db:.1f} dB from torch; {exported.simplification}"
        )
