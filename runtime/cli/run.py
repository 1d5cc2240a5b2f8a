"""`unblur run`: deblur an image, a folder of images, a video, or a camera."""

import sys
import threading
from fractions import Fraction
from typing import Annotated

import typer

from unblur.runtime.blur import BlurGate
from unblur.runtime.cli.live import print_document, requests_of, run_camera, run_cameras
from unblur.runtime.cli.options import (
    CredentialsOption,
    DeadlineOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    RetriesOption,
    SkipSharpOption,
    StallOption,
    StepsOption,
    ThreadsOption,
    source_address,
    with_overrides,
)
from unblur.runtime.console import log_on_stderr, progress, stdout, stop_on_signals
from unblur.runtime.errors import printable
from unblur.runtime.loops.capture import Reconnect
from unblur.runtime.loops.session import (
    DEFAULT_TIMEOUT_S,
    RunRequest,
    open_file_session,
)
from unblur.runtime.loops.stats import RunSummary
from unblur.runtime.media.open_media import is_live
from unblur.runtime.media.url import without_secrets
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import SpecOverrides

_LOST, _INTERRUPTED = 1, 130


@with_overrides
def run(
    model: ModelArgument,
    source: Annotated[
        list[str],
        typer.Option(
            help="Image, folder of images, video file, or camera: rtsp://, v4l2://, csi://0, ... "
            "Repeatable for cameras, with one --sink each."
        ),
    ],
    sink: Annotated[
        list[str],
        typer.Option(
            help="Where to write: an image, a folder, a video (.mp4, .mov, .mkv), rtsp://, ... Repeatable."
        ),
    ],
    credentials: CredentialsOption = None,
    steps: StepsOption = None,
    deadline_ms: DeadlineOption = None,
    skip_sharp: SkipSharpOption = False,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of H.264; less is better and larger.")] = 18,
    fps: Annotated[float, typer.Option(min=0.01, help="Frames per second when a folder becomes a video.")] = 25,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a file or a folder again at its end.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images and frames.")] = 100_000_000,
    device: DeviceOption = "auto",
    stall_s: StallOption = 5,
    retries: RetriesOption = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Camera: serve counters for Prometheus on this port.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address of the counters; 0.0.0.0 is all networks.")
    ] = "127.0.0.1",
    inference_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one frame may take before the run ends with an error.")
    ] = DEFAULT_TIMEOUT_S,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Deblur an image, a folder of images, a video, or a camera.

    A video keeps its times, size, colours and sound, and no frame is left out. Of a camera the newest frame is
    taken, so that it never lags, with as many recursion steps as there is time for; it is opened again when it
    fails. Ctrl-C and SIGTERM finish the sink with what was restored so far. Several cameras share one model and
    take turns.
    Exit code 0 if all was restored, 1 if frames of a damaged video were lost or one of several cameras failed, 2 if
    it could not be done, 130 if a file was interrupted.
    """
    request = RunRequest(
        model=model,
        source=source_address(source[0], credentials),
        sinks=tuple(sink),
        options=RunnerOptions(precision, steps, threads, device, overrides=overrides),
        deadline_ms=deadline_ms,
        timeout_s=inference_timeout,
        gate=BlurGate() if skip_sharp else None,
        reconnect=Reconnect(stall_s=stall_s, retries=retries),
        crf=crf,
        rate=Fraction(fps).limit_denominator(1001),
        loop=loop,
        max_pixels=max_pixels,
    )
    with log_on_stderr(), stop_on_signals() as stop:
        metrics = None if metrics_port is None else (metrics_host, metrics_port)
        if len(source) > 1:
            addresses = [source_address(address, credentials) for address in source]
            run_cameras(requests_of(request, addresses), stop, metrics, json=json)
        elif is_live(source[0]):
            run_camera(request, stop, metrics, json=json)
        else:
            _run_files(request, stop, json=json)


def _run_files(request: RunRequest, stop: threading.Event, *, json: bool) -> None:
    with open_file_session(request) as session, progress("frames") as bar:
        task = bar.add_task("restoring", total=session.source.info.frames, note="")

        def on_frame() -> None:
            bar.advance(task)
            speed = bar.tasks[task].speed
            bar.update(task, note="" if speed is None else f"{speed:.2f} fps")

        summary = session.run(stop, on_frame)
        runner = session.restorer.runner
        device, precision = runner.device, runner.precision
    sink = " and ".join(map(without_secrets, request.sinks))
    if json:
        print_document(summary, device, precision)
    else:
        _print_summary(summary, sink, f"{device}, {precision}")
    _exit_unless_whole(summary, request.source, sink)


def _print_summary(summary: RunSummary, sink: str, how: str) -> None:
    if summary.frames:
        stdout.print(
            f"restored {summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.2f} fps, "
            f"{summary.latency_ms['p50']:.0f} ms a frame) on {how}: {sink}",
            soft_wrap=True,
        )


def _exit_unless_whole(summary: RunSummary, source: str, sink: str) -> None:
    if summary.stopped:
        kept = f"{sink} holds the first {summary.frames} frames" if summary.frames else "nothing was written"
        sys.stderr.write(f"unblur: interrupted; {printable(kept)}\n")
        raise typer.Exit(_INTERRUPTED)
    if summary.lost:
        sys.stderr.write(
            f"unblur: {summary.lost} frames of {printable(source)} are damaged or missing and were lost; "
            f"{printable(sink)} holds the other {summary.frames}\n"
        )
        raise typer.Exit(_LOST)
