"""`unblur preview`: watch what a camera sees, before and after, in a browser."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer


def preview(
    model: Annotated[str, typer.Argument(help="A shipped preset, a bundle, or an .onnx file.")],
    source: Annotated[str, typer.Option(help="Camera or stream: v4l2:///dev/video0, rtsp://..., test://moving.")],
    sink: Annotated[
        list[str] | None, typer.Option(help="Where to write as well: a video, a folder, a stream. Repeatable.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve the page at; 0.0.0.0 is all networks, with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 is a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="UNBLUR_PREVIEW_TOKEN", help="What the address must contain; default a random one."),
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(min=0, help="Take as many steps as fit this time per frame; default the camera's rate."),
    ] = None,
    gate: Annotated[bool, typer.Option(help="Spare frames that are sharp already.")] = False,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Which variant of a bundle to begin with.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one per core.")] = None,
    device: Annotated[
        Literal["auto", "tensorrt", "cuda", "cpu"], typer.Option(help="What to run on; default the fastest here.")
    ] = "auto",
    stall_s: Annotated[float, typer.Option(min=0.1, help="Open it again after so long without a frame.")] = 5,
    retries: Annotated[
        int | None, typer.Option(min=0, help="Attempts in a row before giving up; default for ever.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout at the end.")] = False,
) -> None:
    """Watch a camera before and after deblurring, in a browser.

    The page has a slider between the two, freezes and zooms, shows latency, rate and steps, and changes how many
    steps are taken, by what deadline, and at what precision. It is served to this machine only; at any other
    address whoever opens it needs the token in the address that is printed at start.
    Ctrl-C and SIGTERM end it. Exit code 0, or 2 if it could not be done.
    """
    from unblur.runtime.blur import BlurGate
    from unblur.runtime.cli.run import print_summary
    from unblur.runtime.console import log_on_stderr, print_json, stderr, stop_on_signals
    from unblur.runtime.loops.capture import Reconnect
    from unblur.runtime.loops.live_session import LiveRequest
    from unblur.runtime.preview.host import preview_camera
    from unblur.runtime.preview.requests import access_for
    from unblur.runtime.runner import RunnerOptions

    request = LiveRequest(
        model=model,
        source=source,
        sinks=tuple(sink or ["null:"]),
        options=RunnerOptions(precision=precision, threads=threads, device=device),
        deadline_ms=deadline_ms,
        gate=BlurGate() if gate else None,
        reconnect=Reconnect(stall_s=stall_s, retries=retries),
    )

    def tell(url: str) -> None:
        stderr.print(f"watch it at {url}", soft_wrap=True, markup=False)

    with log_on_stderr(), stop_on_signals() as stop:
        summary = preview_camera(request, access_for(host, token), port, stop, tell)
    if json:
        print_json(asdict(summary))
    else:
        print_summary(summary, request)
