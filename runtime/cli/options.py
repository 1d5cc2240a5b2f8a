"""Options that several commands share, so that each is spelled and explained in one way.

A command adds the default: `steps: StepsOption = None`.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from unblur.runtime.files import read_secret
from unblur.runtime.media.url import takes_credentials, with_credentials

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A shipped preset, a bundle, an .onnx file or a TensorRT engine.")
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "fp16", "int8"],
    typer.Option(help="Variant of a bundle to run; auto is the fastest here."),
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Recursion steps; default the model's own.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; default one per core.")]
DeviceOption = Annotated[
    Literal["auto", "tensorrt", "cuda", "openvino", "cpu"],
    typer.Option(help="Where to run; auto is the fastest here."),
]
PairsOption = Annotated[
    Path | None, typer.Option(help="Folder of pairs of a blurred and a sharp image, for PSNR and SSIM.")
]
SyntheticBlurOption = Annotated[
    bool, typer.Option("--synthetic-blur", help="The images are sharp: blur each by a synthetic camera shake.")
]
MaxImagesOption = Annotated[
    int | None,
    typer.Option(min=2, help="Use this many images, chosen to cover the blur, light, texture and noise of all."),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option(min=0, help="Take as many steps as fit this time per frame; default of a camera: its rate."),
]
SkipSharpOption = Annotated[bool, typer.Option(help="Camera: pass frames on that are sharp already.")]
StallOption = Annotated[
    float, typer.Option("--stall-s", min=0.1, help="Camera: reopen it after this many seconds without a frame.")
]
RetriesOption = Annotated[
    int | None,
    typer.Option(min=0, help="Camera: failed attempts in a row before giving up; default no limit."),
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with USER:PASSWORD of an rtsp or http source; or set UNBLUR_CREDENTIALS.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def output_option(help: str) -> Any:
    """The option --output, -o of `Annotated[Path, output_option("The page to write.")]`."""
    return typer.Option("--output", "-o", help=help)


def source_address(source: str, credentials: Path | None) -> str:
    """`source` with the credentials of that file, else those of UNBLUR_CREDENTIALS, else as it is."""
    if credentials is not None:
        return with_credentials(source, read_secret(credentials))
    given = os.environ.get("UNBLUR_CREDENTIALS")
    return with_credentials(source, given) if given and takes_credentials(source) else source
