"""Options that several commands share, so that each is spelled and explained in one way.

A command adds the default: `steps: StepsOption = None`.
"""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from unblur.runtime.files import read_secret
from unblur.runtime.media.url import takes_credentials, with_credentials
from unblur.runtime.spec import Colour, Device, OutputKind, SpecOverrides, parse_numbers, parse_value_range

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
    Device,
    typer.Option(help="Where to run; auto is the fastest here. ort-tensorrt and cuda are ONNX Runtime's."),
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
    typer.Option(min=0, help="Do what fits this time per frame; default of a camera: its rate."),
]
FallbackOption = Annotated[
    list[str] | None,
    typer.Option(help="Faster model for frames that MODEL has no time for. Repeatable, the best first."),
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
StrengthOption = Annotated[
    float, typer.Option(min=0, max=1, help="How much of the restoration to take; 0 is the source, 1 all.")
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


_OVERRIDES: dict[str, Any] = {
    "value_range": Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Black and white as the network takes them, e.g. -1,1.")
    ],
    "mean": Annotated[
        str | None,
        typer.Option(metavar="M[,M,M]", help="The network takes (value - mean) / std, per channel."),
    ],
    "std": Annotated[str | None, typer.Option(metavar="S[,S,S]", help="See --mean.")],
    "channels": Annotated[
        Literal["rgb", "bgr", "grey"] | None, typer.Option(help="Order of the network's channels.")
    ],
    "output_kind": Annotated[
        Literal["image", "residual"] | None, typer.Option(help="A residual is added to the input.")
    ],
    "input_name": Annotated[str | None, typer.Option(help="The graph's tensor that takes the image.")],
    "output_name": Annotated[str | None, typer.Option(help="The graph's tensor that gives the image.")],
    "multiple_of": Annotated[int | None, typer.Option(min=1, help="What sides have to be multiples of.")],
    "scale": Annotated[int | None, typer.Option(min=1, help="Output size over input size.")],
}
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_PANEL = "A network from elsewhere: what inspection cannot find, or guesses wrong"
_COLOURS: dict[str, Colour] = {"rgb": "RGB", "bgr": "BGR", "grey": "grey"}


def with_overrides(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that state what a network takes; it gets them as its parameter `overrides`."""

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        stated = {name: given.pop(name) for name in _OVERRIDES}
        command(**given, overrides=_overrides(**stated))

    parameters = [each for each in _signature(command).parameters.values() if each.name != "overrides"]
    for name, annotation in _OVERRIDES.items():
        option = annotation.__metadata__[0]
        option.rich_help_panel = _PANEL
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped


def _signature(command: Callable[..., None]) -> inspect.Signature:
    found = inspect.signature(command, eval_str=True)
    return found.replace(parameters=[each.replace(kind=_KEYWORD) for each in found.parameters.values()])


def _overrides(
    value_range: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    output_kind: OutputKind | None,
    **others: Any,
) -> SpecOverrides:
    return SpecOverrides(
        value_range=None if value_range is None else parse_value_range(value_range),
        mean=None if mean is None else parse_numbers(mean, "--mean"),
        std=None if std is None else parse_numbers(std, "--std"),
        colour=None if channels is None else _COLOURS[channels],
        output=output_kind,
        **others,
    )
