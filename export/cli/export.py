"""`unblur export`: a network as ONNX, compared with torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unblur.calibration.onnx_model import check_onnx_name
from unblur.export.onnx_file import write_source
from unblur.export.source_model import find_source
from unblur.export.torch_module import settings_from_text
from unblur.runtime.cli.options import JsonOption, StepsOption, output_option, with_overrides
from unblur.runtime.console import log_on_stderr, print_json, progress, stderr
from unblur.runtime.quality.verify_report import finite_db
from unblur.runtime.spec import SpecOverrides

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE_MODEL",
        help="A shipped preset (lprn-s), a checkpoint, or a factory of your own network: package.module:name.",
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Weights for a factory: .safetensors, or a state dict of torch.save.")
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An argument for the factory. Repeatable.")
]


@with_overrides
def export(
    model: SourceArgument,
    output: Annotated[Path, output_option("The .onnx file to write.")],
    weights: WeightsOption = None,
    settings: SettingsOption = None,
    steps: StepsOption = None,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Type of weights and arithmetic.")] = "fp32",
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Write a network as ONNX, for any batch and size, and check that it still computes the same."""
    check_onnx_name(output)
    with log_on_stderr():
        source = find_source(
            model, weights=weights, settings=settings_from_text(settings or ()), steps=steps, overrides=overrides
        )
    with progress() as bar:
        bar.add_task("exporting", total=None, note="")
        exported = write_source(source, output, precision)
    parity_db = finite_db(exported.parity.psnr_db)
    if json:
        print_json({"nodes": exported.nodes, "bytes": exported.bytes, "parity_db": parity_db})
    else:
        stderr.print(
            f"{output}: {precision}, {exported.spec.steps} steps, {exported.nodes} nodes, "
            f"{exported.bytes:,} bytes, "
            f"{parity_db:.1f} dB from torch; {exported.simplification}"
        )
