"""`unblur preview`: watch a camera before and after deblurring, in a browser."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unblur.runtime.blur import BlurGate
from unblur.runtime.cli.live import print_summary
from unblur.runtime.cli.options import (
    CredentialsOption,
    DeadlineOption,
    DeviceOption,
    FallbackOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    RetriesOption,
    SkipSharpOption,
    StallOption,
    ThreadsOption,
    source_address,
    with_overrides,
)
from unblur.runtime.console import log_on_stderr, print_json, stderr, stop_on_signals
from unblur.runtime.errors import BadInput
from unblur.runtime.files import read_secret
from unblur.runtime.loops.capture import Reconnect
from unblur.runtime.loops.session import RunRequest
from unblur.runtime.preview.host import preview_camera
from unblur.runtime.preview.requests import access_for
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import SpecOverrides


@with_overrides
def preview(
    model: ModelArgument,
    source: Annotated[str, typer.Option(help="Camera or stream: v4l2:///dev/video0, rtsp://..., test://moving.")],
    sink: Annotated[
        list[str] | None, typer.Option(help="Where to write as well: a video, a folder, a stream. Repeatable.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve the page at; 0.0.0.0 is all networks, with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 is a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="What the address must contain, in a file; or set UNBLUR_PREVIEW_TOKEN. Default random."),
    ] = None,
    credentials: CredentialsOption = None,
    deadline_ms: DeadlineOption = None,
    fallback: FallbackOption = None,
    skip_sharp: SkipSharpOption = False,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    stall_s: StallOption = 5,
    retries: RetriesOption = None,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Watch a camera before and after deblurring, in a browser.

    The page has a slider between the two, freezes and zooms, shows latency and rate, and changes the highest rung
    of the ladder, the deadline and the precision. It is served to this machine only; at any other
    address whoever opens it needs the token in the address that is printed at start.
    Ctrl-C and SIGTERM end it. Exit code 0, or 2 if it could not be done.
    """
    request = RunRequest(
        model=model,
        source=source_address(source, credentials),
        sinks=tuple(sink or ["null:"]),
        options=RunnerOptions(precision=precision, threads=threads, device=device, overrides=overrides),
        fallbacks=tuple(fallback or ()),
        deadline_ms=deadline_ms,
        gate=BlurGate() if skip_sharp else None,
        reconnect=Reconnect(stall_s=stall_s, retries=retries),
    )

    token = os.environ.get("UNBLUR_PREVIEW_TOKEN") if token_file is None else read_secret(token_file)
    access = access_for(host, token)
    if access.token is not None and token is None and not stderr.is_terminal:
        raise BadInput(f"a page at {host} needs a token, which is not written to a log; give --token-file")

    def announce(url: str) -> None:
        shown = url if stderr.is_terminal else url.partition("?")[0]  # stderr may be a log, which others read
        hint = "" if shown == url else "?token=... (that of --token-file)"
        stderr.print(f"watch it at {shown}{hint}", soft_wrap=True)

    with log_on_stderr(), stop_on_signals() as stop:
        summary = preview_camera(request, access, port, stop, announce)
    if json:
        print_json(asdict(summary))
    else:
        print_summary(summary, request)
