"""`unblur run`: restore a picture, a folder of pictures or a video."""

import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from unblur.runtime.deblur import Deblurrer
    from unblur.runtime.media import Sink, Source
    from unblur.runtime.stream import StreamSummary

_LOST, _INTERRUPTED = 1, 130


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run)


def run(
    model: Annotated[str, typer.Argument(help="A shipped preset, a bundle, or an .onnx file.")],
    source: Annotated[str, typer.Option(help="Picture, folder of pictures, or video file.")],
    sink: Annotated[str, typer.Option(help="Where to write: a picture, a folder, or a video (.mp4, .mov, .mkv).")],
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps; default the model's own.")] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Which variant of a bundle to run.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one per core.")] = None,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of H.264; less is better and larger.")] = 18,
    rate: Annotated[float, typer.Option(min=0.01, help="Pictures per second when a folder becomes a video.")] = 25,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger pictures and frames.")] = 100_000_000,
    device: Annotated[
        Literal["auto", "tensorrt", "cuda", "cpu"], typer.Option(help="What to run on; default the fastest here.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Restore a picture, a folder of pictures or a video.

    A video keeps its times, size, colours and sound. Ctrl-C finishes the sink with what was restored so far.
    Exit code 0 if all was restored, 1 if frames of a damaged video were lost, 2 if it could not be done, 130 if
    interrupted.
    """
    from unblur.runtime.console import log_on_stderr, print_json
    from unblur.runtime.deblur import Deblurrer
    from unblur.runtime.video import open_sink, open_source

    picture_rate = Fraction(rate).limit_denominator(1001)
    with (
        log_on_stderr(),
        _stop_on_signals() as stop,
        open_source(source, max_pixels=max_pixels, rate=picture_rate) as frames,
        Deblurrer(model, precision=precision, steps=steps, threads=threads, device=device) as deblur,
        open_sink(sink, frames.info, crf=crf) as target,
    ):
        summary = _stream(frames, deblur, target, stop)
        used_device, used_precision = deblur.runner.device, deblur.runner.precision
    if json:
        print_json({**dataclasses.asdict(summary), "device": used_device, "precision": used_precision})
    else:
        _print_summary(summary, sink, f"{used_device}, {used_precision}")
    _exit_unless_whole(summary, source, sink)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second raises KeyboardInterrupt, which discards."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stream(source: "Source", deblur: "Deblurrer", sink: "Sink", stop: threading.Event) -> "StreamSummary":
    """Run the loop under a progress bar on stderr."""
    from unblur.runtime.console import progress
    from unblur.runtime.stream import run_stream

    with progress("frames") as bar:
        task = bar.add_task("restoring", total=source.info.frames, note="")

        def on_frame() -> None:
            bar.advance(task)
            speed = bar.tasks[task].speed
            bar.update(task, note="" if speed is None else f"{speed:.2f} fps")

        return run_stream(source, deblur, sink, stop=stop, on_frame=on_frame)


def _print_summary(summary: "StreamSummary", sink: str, how: str) -> None:
    from unblur.runtime.console import stdout

    if summary.frames:
        stdout.print(
            f"restored {summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.2f} fps, "
            f"{summary.latency_ms['p50']:.0f} ms a frame) on {how}: {sink}",
            markup=False,
            soft_wrap=True,
        )


def _exit_unless_whole(summary: "StreamSummary", source: str, sink: str) -> None:
    if summary.stopped:
        kept = f"{sink} holds the first {summary.frames} frames" if summary.frames else "nothing was written"
        sys.stderr.write(f"unblur: interrupted; {kept}\n")
        raise typer.Exit(_INTERRUPTED)
    if summary.lost:
        sys.stderr.write(
            f"unblur: {summary.lost} frames of {source} are damaged or missing and were lost; "
            f"{sink} holds the other {summary.frames}\n"
        )
        raise typer.Exit(_LOST)
