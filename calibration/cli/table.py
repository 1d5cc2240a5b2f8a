"""`unblur table`: compare calibration tables; carry them to TensorRT's cache and back, and to tuned weights."""

from pathlib import Path
from typing import Annotated

import typer

from unblur.calibration import table as tables
from unblur.calibration.onnx_model import read_onnx
from unblur.calibration.trt_cache import cache_from_table, read_cache, table_from_cache, version_from_text
from unblur.runtime.console import print_json, stderr, stdout
from unblur.runtime.files import atomic_file
from unblur.runtime.model.calibration_table import read_table

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


table = typer.Typer(
    help="Compare calibration tables; carry them to TensorRT's cache and back, and to tuned weights.",
    no_args_is_help=True,
)


@table.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A calibration table.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    percent: Annotated[float, typer.Option(min=0, help="Ranges that moved by no more count as equal.")] = 5.0,
    json: _Json = False,
) -> None:
    """Show where two calibration tables differ; exit with 1 if they do."""
    found = tables.diff(read_table(first), read_table(second), percent=percent)
    if json:
        print_json(
            {
                "settings": found.settings,
                "only_in_first": found.only_in_first,
                "only_in_second": found.only_in_second,
                "moved": found.moved,
            }
        )
    else:
        for line in found.lines():
            stdout.print(line, soft_wrap=True)
    raise typer.Exit(1 if found else 0)


@table.command("to-cache")
def to_cache(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="From `unblur calibrate --table`, or of a bundle.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration cache to write.")],
    tensorrt: Annotated[str, typer.Option(help="Version of the TensorRT that will read it, e.g. 8.6.1.")] = "10.3",
    minmax: Annotated[
        bool, typer.Option("--minmax", help="For an IInt8MinMaxCalibrator; DLA takes the default alone.")
    ] = False,
    json: _Json = False,
) -> None:
    """Write the ranges of a table as the calibration cache of TensorRT 7 to 10, for implicit INT8 and DLA.

    TensorRT takes a cache only from its own version and for the kind of calibrator that reads it.
    """
    cache = cache_from_table(
        read_table(table), version_from_text(tensorrt), "MinMaxCalibration" if minmax else "EntropyCalibration2"
    )
    text = cache.to_text()
    with atomic_file(output) as temporary:
        temporary.write_bytes(text.encode())
    if json:
        print_json({"cache": str(output), "header": text.partition("\n")[0], "tensors": len(cache.scales)})
    else:
        stderr.print(f"{output}: scales of {len(cache.scales)} tensors for TensorRT {tensorrt}")


@table.command("from-cache")
def from_cache(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="A calibration cache that TensorRT wrote.")],
    model: Annotated[Path, typer.Option(metavar="MODEL.onnx", help="The fp32 model it was made for.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration table to write.")],
    json: _Json = False,
) -> None:
    """Make a calibration table from a TensorRT cache, checked against the model; `unblur calibrate` reads it.

    A convolution whose input has no scale in the cache stays float.
    """
    table = table_from_cache(read_cache(cache), read_onnx(model), where=str(cache))
    with atomic_file(output) as temporary:
        temporary.write_text(table.to_json())
    if json:
        print_json({"table": str(output), "tensors": len(table.ranges), "excluded": table.excluded})
    else:
        excluded = f"; float, because the cache has no scale: {', '.join(table.excluded)}" if table.excluded else ""
        stderr.print(f"{output}: ranges of {len(table.ranges)} activations{excluded}")


@table.command("bind")
def bind(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="What `unblur train --qat` was given.")],
    model: Annotated[Path, typer.Option(metavar="MODEL.onnx", help="The export of the tuned weights, fp32.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration table to write.")],
    json: _Json = False,
) -> None:
    """Make the table of a network that of its weights after `unblur train --qat`, for `calibrate --from-table`."""
    bound = tables.bound_to(read_table(table), read_onnx(model), where=str(table))
    with atomic_file(output) as temporary:
        temporary.write_text(bound.to_json())
    if json:
        print_json({"table": str(output), "model_sha256": bound.model_sha256})
    else:
        stderr.print(f"{output}: {table} for {model}")
