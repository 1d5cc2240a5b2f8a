"""`unblur run`: restore a picture, a folder of pictures, a video, or what a camera sees."""

import dataclasses
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import threading

    from unblur.runtime.deblur import Deblurrer
    from unblur.runtime.live.ladder import Pace, RungChoice
    from unblur.runtime.media import MediaInfo, Sink, Source
    from unblur.runtime.stream import Restore, StreamSummary

_LOST, _INTERRUPTED = 1, 130


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run)


def run(
    model: Annotated[str, typer.Argument(help="A shipped preset, a bundle, or an .onnx file.")],
    source: Annotated[
        str, typer.Option(help="Picture, folder of pictures, video file, or camera: rtsp://, v4l2://, csi://0, ...")
    ],
    sink: Annotated[
        list[str],
        typer.Option(
            help="Where to write: a picture, a folder, a video (.mp4, .mov, .mkv), rtsp://, ... Repeatable."
        ),
    ],
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps; default the model's own.")] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(min=0, help="Take as many steps as fit this time per frame; a camera's default is its rate."),
    ] = None,
    gate: Annotated[bool, typer.Option(help="Camera: spare frames that are sharp already.")] = False,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Which variant of a bundle to run.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one per core.")] = None,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of H.264; less is better and larger.")] = 18,
    rate: Annotated[float, typer.Option(min=0.01, help="Pictures per second when a folder becomes a video.")] = 25,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a file or a folder again at its end.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger pictures and frames.")] = 100_000_000,
    device: Annotated[
        Literal["auto", "tensorrt", "cuda", "cpu"], typer.Option(help="What to run on; default the fastest here.")
    ] = "auto",
    stall_s: Annotated[
        float, typer.Option(min=0.1, help="Camera: open it again after so long without a frame.")
    ] = 5,
    retries: Annotated[
        int | None, typer.Option(min=0, help="Camera: attempts in a row before giving up; default for ever.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Camera: serve counters for Prometheus on this port.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address of the counters; 0.0.0.0 is all networks.")
    ] = "127.0.0.1",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Restore a picture, a folder of pictures, a video, or what a camera sees.

    A video keeps its times, size, colours and sound, and no frame is left out. Of a camera the newest frame is
    taken, so that it never lags, with as many recursion steps as there is time for; it is opened again when it
    fails. Ctrl-C and SIGTERM finish the sink with what was restored so far.
    Exit code 0 if all was restored, 1 if frames of a damaged video were lost, 2 if it could not be done, 130 if
    a file was interrupted.
    """
    from unblur.runtime.commands.live import run_camera
    from unblur.runtime.console import log_on_stderr
    from unblur.runtime.live.feed import Reconnect
    from unblur.runtime.live.ladder import RungChoice
    from unblur.runtime.live.session import LiveRequest
    from unblur.runtime.live.sharpness import BlurGate
    from unblur.runtime.signals import stop_on_signals
    from unblur.runtime.video import is_live

    choice = RungChoice(precision, threads, device)
    with log_on_stderr(), stop_on_signals() as stop:
        if is_live(source):
            request = LiveRequest(
                model=model,
                source=source,
                sinks=tuple(sink),
                choice=choice,
                steps=steps,
                deadline_ms=deadline_ms,
                gate=BlurGate() if gate else None,
                reconnect=Reconnect(stall_s=stall_s, retries=retries),
                crf=crf,
                max_pixels=max_pixels,
            )
            metrics = None if metrics_port is None else (metrics_host, metrics_port)
            run_camera(request, stop, metrics, json=json)
        else:
            picture_rate = Fraction(rate).limit_denominator(1001)
            job = _FileJob(
                model, source, tuple(sink), choice, steps, deadline_ms, crf, picture_rate, loop, max_pixels
            )
            _run_files(job, stop, json=json)


@dataclass(frozen=True)
class _FileJob:
    """What to restore and how; the fields are options of `run`."""

    model: str
    source: str
    sinks: tuple[str, ...]
    choice: "RungChoice"
    steps: int | None
    deadline_ms: float | None
    crf: int
    rate: Fraction
    loop: bool
    max_pixels: int


def _run_files(job: _FileJob, stop: "threading.Event", *, json: bool) -> None:
    from unblur.runtime.console import print_json
    from unblur.runtime.video import open_sinks, open_source

    with (
        open_source(job.source, max_pixels=job.max_pixels, rate=job.rate, loop=job.loop) as frames,
        _open_restore(job, frames.info) as restore,
        open_sinks(job.sinks, frames.info, crf=job.crf) as target,
    ):
        summary = _stream(frames, restore, target, stop)
        used_device, used_precision = restore.runner.device, restore.runner.precision
    sink = " and ".join(job.sinks)
    if json:
        print_json(
            {**dataclasses.asdict(summary), "device": used_device, "precision": used_precision, **_steps(restore)}
        )
    else:
        _print_summary(summary, sink, f"{used_device}, {used_precision}")
    _exit_unless_whole(summary, job.source, sink)


def _open_restore(job: _FileJob, info: "MediaInfo") -> "Deblurrer | Pace":
    """All steps for every frame, or with a deadline as many as fit it."""
    from unblur.runtime.live.ladder import UNKNOWN_SIZE_HW, Pace, open_ladder

    if job.deadline_ms is None:
        return job.choice.open(job.model, job.steps)
    size_hw = info.size_hw or UNKNOWN_SIZE_HW
    return Pace(open_ladder(job.model, size_hw, job.choice, steps=job.steps), job.deadline_ms)


def _steps(restore: "Deblurrer | Pace") -> dict[str, object]:
    from unblur.runtime.live.ladder import Pace

    if not isinstance(restore, Pace):
        return {}
    return {"steps": dict(sorted(restore.steps.items())), "late": restore.late}


def _stream(source: "Source", restore: "Restore", sink: "Sink", stop: "threading.Event") -> "StreamSummary":
    """Run the loop under a progress bar on stderr."""
    from unblur.runtime.console import progress
    from unblur.runtime.stream import run_stream

    with progress("frames") as bar:
        task = bar.add_task("restoring", total=source.info.frames, note="")

        def on_frame() -> None:
            bar.advance(task)
            speed = bar.tasks[task].speed
            bar.update(task, note="" if speed is None else f"{speed:.2f} fps")

        return run_stream(source, restore, sink, stop=stop, on_frame=on_frame)


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
