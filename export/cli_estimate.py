"""`unblur estimate`: how fast a network would be on a device that is not here."""

from typing import Annotated, Literal

import typer

from unblur.runtime.console import print_json, progress, stdout
from unblur.runtime.errors import BadInput, needs_extra


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("estimate")(estimate)


def estimate(
    model: Annotated[
        str, typer.Argument(help="A preset, trained or not, a checkpoint, a bundle or an .onnx file.")
    ] = "",
    device: Annotated[
        str, typer.Option(help="Such as orin-nano-super or rtx-4090, or cpu for this one; see --list.")
    ] = "",
    mode: Annotated[str | None, typer.Option(help="Power mode, such as 15W. [default: the fastest]")] = None,
    size: Annotated[str, typer.Option(help="Height x width of the frame.")] = "720x1280",
    precision: Annotated[Literal["fp32", "fp16", "int8", "all"], typer.Option(help="Of the arithmetic.")] = "all",
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps, if not the model's own.")] = None,
    list_devices: Annotated[bool, typer.Option("--list", help="Show the devices with their peaks.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Estimate how fast a network would be on a device that is not here.

    A roofline over the layers of the network, from the published peaks of the device: a range, with what it
    assumes. `unblur profile` measures, on the device.
    """
    if list_devices or device == "list":
        _list_devices(json)
        return
    if not (model and device):
        raise BadInput("`unblur estimate` needs a MODEL and a --device; --list shows the devices")
    from unblur.runtime.profile.request import size_from_text

    size_hw = size_from_text(size)
    with needs_extra("export"), progress() as bar:
        from unblur.export.estimate.assessment import assess
        from unblur.export.estimate.machine import find_machine
        from unblur.export.estimate.model import graph_of
        from unblur.export.estimate.text import document, print_assessment

        bar.add_task("reading the network", total=None, note="")
        machine = find_machine(device, mode)
        wanted = None if precision == "all" else precision
        assessment = assess(graph_of(model, steps), machine, size_hw, wanted)
    if json:
        print_json(document(assessment))
    else:
        print_assessment(assessment, stdout)


def _list_devices(json: bool) -> None:
    from unblur.export.estimate.list import devices_document, print_devices

    if json:
        print_json(devices_document())
    else:
        print_devices(stdout)
