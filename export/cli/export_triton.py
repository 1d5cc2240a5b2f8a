"""`unblur export-triton`: a bundle as models of a Triton Inference Server."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from unblur.export.triton import Serving, find_models, write_models
from unblur.runtime.cli.options import JsonOption, StepsOption, output_option
from unblur.runtime.console import print_json, stderr
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.open_model import find_model
from unblur.runtime.spec import parse_size_hw


def export_triton(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A shipped preset or a bundle folder.")],
    output: Annotated[Path, output_option("The model repository, a folder; models are added to it.")],
    steps: StepsOption = None,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Most images in a batch of an ONNX model; an engine has its own.")
    ] = Serving.max_batch,
    delay_ms: Annotated[
        float, typer.Option(min=0, help="How long a request waits for others to share its batch.")
    ] = Serving.delay_ms,
    size: Annotated[
        list[str] | None, typer.Option(help="Height x width to warm up with; default 720x1280. Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a bundle as a model repository of NVIDIA Triton Inference Server.

    Each variant becomes a model of the ONNX Runtime backend, each engine of the bundle one of the TensorRT backend,
    with a config for any image size, batching and warm-up. A model that is in the repository gets a new version.

    A Triton server has loaded and run the ONNX models on a CPU with a stand-in for its ONNX Runtime backend;
    neither that backend nor the one for engines has been run yet.
    """
    sizes_hw = tuple(map(parse_size_hw, size)) if size else Serving.sizes_hw
    models = find_models(read_bundle(find_model(bundle)), Serving(max_batch, delay_ms, sizes_hw), steps)
    written = write_models(models, output)
    if json:
        print_json({"repository": str(output), "models": [dataclasses.asdict(model) for model in written]})
        return
    for model in written:
        state = "" if model.added else ", unchanged"
        stderr.print(
            f"{output / model.name}: version {model.version}{state}, {model.bytes:,} bytes, "
            f"batches up to {max(1, model.max_batch)}",
            soft_wrap=True,
        )
