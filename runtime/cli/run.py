"""`unblur run`: deblur images, folders, videos, or a camera."""

import dataclasses
import re
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from unblur.runtime.blur import BlurGate
from unblur.runtime.cli.live import (
    Address,
    count,
    print_document,
    requests_of,
    run_camera,
    run_cameras,
    sink_names,
)
from unblur.runtime.cli.options import (
    CredentialsOption,
    DeadlineOption,
    DeviceOption,
    FallbackOption,
    JsonOption,
    PrecisionOption,
    RetriesOption,
    SkipSharpOption,
    StallOption,
    StepsOption,
    StrengthOption,
    ThreadsOption,
    source_address,
    with_overrides,
)
from unblur.runtime.console import log_on_stderr, print_json, progress, stdout, stop_on_signals
from unblur.runtime.errors import BadInput, needs_extra, printable
from unblur.runtime.files import exists
from unblur.runtime.images import is_image_path
from unblur.runtime.loops.batch import Batch, BatchResult, Existing, plan_batch, run_batch
from unblur.runtime.loops.capture import Reconnect
from unblur.runtime.loops.session import (
    DEFAULT_TIMEOUT_S,
    RunRequest,
    open_file_session,
)
from unblur.runtime.loops.stats import RunSummary
from unblur.runtime.media.open_media import is_live
from unblur.runtime.media.url import without_secrets
from unblur.runtime.model.deblurrer import DEFAULT_MODEL
from unblur.runtime.model.open_model import find_model, shipped_presets
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import SpecOverrides

_FAILED, _IMPOSSIBLE, _INTERRUPTED = 1, 2, 130
_LISTED = 20  # files named one by one at the end


@with_overrides
def run(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [SOURCE]...",
            help="Images, folders, videos, patterns or a camera; before them a shipped preset, a bundle, an .onnx "
            f"file or an engine, if it is not to be {DEFAULT_MODEL}.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="A file, a folder, or a camera: rtsp://, v4l2://, csi://0, ... Repeatable for cameras, with one "
            "--sink each."
        ),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            "--sink",
            "-o",
            help="Where to write: an image, a folder, a video (.mp4, .mov, .mkv), rtsp://, ... Repeatable. "
            "Default beside the source, as in photo_unblurred.jpg.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Enter the folders in a folder.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out what is there already.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")] = False,
    strength: StrengthOption = 1,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG, WebP, AVIF and HEIC.")] = 95,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of video; less is better and larger.")] = 18,
    keep_depth: Annotated[
        bool, typer.Option("--keep-depth", help="Write 10 bits of a video that has them, and leave HDR as it is.")
    ] = False,
    credentials: CredentialsOption = None,
    steps: StepsOption = None,
    deadline_ms: DeadlineOption = None,
    fallback: FallbackOption = None,
    skip_sharp: SkipSharpOption = False,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    fps: Annotated[float, typer.Option(min=0.01, help="Frames per second when a folder becomes a video.")] = 25,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a file or a folder again at its end.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images and frames.")] = 100_000_000,
    device: DeviceOption = "auto",
    ray: Annotated[
        str | None,
        typer.Option(metavar="local|auto|HOST:PORT", help="Restore files on a Ray cluster; local is this machine."),
    ] = None,
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
    """Deblur images, folders, videos, or a camera. `unblur photo.jpg` writes photo_unblurred.jpg beside it.

    An image keeps its depth, transparency, EXIF and colour profile; a video its times, size, colours, sound,
    subtitles and chapters, and no frame is left out. Of a camera the newest frame is taken, so that it never lags,
    and the best is done that there is time for: fewer recursion steps, or a --fallback. It is opened again when it
    fails. Several cameras share one model and take turns. Ctrl-C and SIGTERM finish the sink with what was restored
    so far.
    Exit code 0 if all was restored, 1 if some of it is damaged or one of several cameras failed, 2 if it could not
    be done, 130 if files were interrupted.
    """
    model, sources = model_and_sources(paths or [], source)
    find_model(model)
    request = RunRequest(
        model=model,
        source=source_address(sources[0], credentials),
        sinks=tuple(sink or ()),
        options=RunnerOptions(precision, steps, threads, device, overrides=overrides),
        fallbacks=tuple(fallback or ()),
        deadline_ms=deadline_ms,
        timeout_s=inference_timeout,
        gate=BlurGate() if skip_sharp else None,
        reconnect=Reconnect(stall_s=stall_s, retries=retries),
        crf=crf,
        quality=quality,
        keep_depth=keep_depth,
        strength=strength,
        rate=Fraction(fps).limit_denominator(1001),
        loop=loop,
        max_pixels=max_pixels,
    )
    existing: Existing = "skip" if skip_existing else "overwrite" if overwrite else "refuse"
    with log_on_stderr(), stop_on_signals() as stop:
        metrics = None if metrics_port is None else (metrics_host, metrics_port)
        if ray is not None:
            _check_for_cluster(request, sources)
        if any(map(is_live, sources)):
            addresses = [source_address(address, credentials) for address in sources]
            _run_live(request, addresses, stop, metrics, json=json)
        elif ray is not None or is_batch(request, sources):
            batch = plan_batch(sources, sink[0] if sink else None, recursive=recursive, existing=existing)
            _run_batch(request, batch, stop, ray, json=json)
        else:
            _run_file(request, existing, stop, json=json)


def _run_live(
    request: RunRequest, sources: list[str], stop: threading.Event, metrics: Address | None, *, json: bool
) -> None:
    if not request.sinks:
        name = without_secrets(sources[0])
        raise BadInput(f"{name} needs a sink; give --sink with a video, a folder or a stream")
    if len(sources) > 1:
        run_cameras(requests_of(request, sources), stop, metrics, json=json)
    else:
        run_camera(request, stop, metrics, json=json)


def model_and_sources(paths: list[str], source: list[str] | None) -> tuple[str, list[str]]:
    """What of the arguments is the model. Raises BadInput if there is no source.

    With --source the first argument is the model; without, only if it names one.
    """
    if source:
        model, *others = paths or [DEFAULT_MODEL]
        return model, [*source, *others]
    if paths and (names_model(paths[0]) or (len(paths) > 1 and not _names_source(paths[0]))):
        model, *paths = paths
    else:
        model = DEFAULT_MODEL
    if not paths:
        raise BadInput("there is no source; give an image, a folder, a video or a camera, as in `unblur photo.jpg`")
    return model, paths


def names_model(text: str) -> bool:
    """Whether it is a shipped preset, a bundle, an .onnx file or an engine."""
    path = Path(text)
    is_bundle = path.suffix == ".unblur" or exists(path / "bundle.json")
    return text in shipped_presets() or path.suffix in (".onnx", ".engine") or is_bundle


def _names_source(text: str) -> bool:
    return exists(Path(text)) or bool(re.search(r"[./*?:]", text))


def is_batch(request: RunRequest, sources: list[str]) -> bool:
    """Whether several files are restored one by one, unlike one file, or a folder that becomes one video."""
    to_folder = _is_to_folder(request)
    if len(sources) > 1 and not to_folder:
        raise BadInput(f"{len(sources)} files need one folder as --sink, got {' and '.join(request.sinks)}")
    return len(sources) > 1 or (to_folder and not request.loop and not Path(sources[0]).is_file())


def _is_to_folder(request: RunRequest) -> bool:
    """Whether each file becomes one of its own, in a folder or beside its source."""
    return not request.sinks or (len(request.sinks) == 1 and _names_folder(request.sinks[0]))


def _names_folder(sink: str) -> bool:
    path = Path(sink)
    return not is_live(sink) and (not path.suffix or sink.endswith("/") or (exists(path) and path.is_dir()))


def _run_file(request: RunRequest, existing: Existing, stop: threading.Event, *, json: bool) -> None:
    """One file, or a folder as the frames of one video."""
    if not request.sinks:
        batch = plan_batch([request.source], None, existing=existing)
        request = dataclasses.replace(request, sinks=tuple(map(str, batch.targets.values())))
    sink_files = [Path(sink) for sink in request.sinks if exists(Path(sink)) and Path(sink).is_file()]
    if not request.sinks or (existing == "skip" and sink_files):
        skipped = {request.source: f"{sink_files[0]} exists"} if sink_files else batch.skipped
        _run_batch(request, Batch({}, skipped), stop, json=json)
        return
    with open_file_session(request) as session, progress("frames") as bar:
        task = bar.add_task("restoring", total=session.source.info.frames, note="")

        def on_frame() -> None:
            bar.advance(task)
            speed = bar.tasks[task].speed
            bar.update(task, note="" if speed is None else f"{speed:.2f} fps")

        summary = session.run(stop, on_frame)
        runner, kind = session.restorer.runner, session.source.info.kind
        failed: dict[Path, str] = getattr(session.source, "failed", {})
        device, precision = runner.device, runner.precision
    if json:
        print_document(summary, device, precision)
    elif summary.frames:
        what = "1 image" if kind == "image" else count(summary.frames, "frame")
        _print_done(what, summary, f"{device}, {precision}", sink_names(request.sinks), replaced=len(sink_files))
    _list_left_out("could not be restored", {str(path): reason for path, reason in failed.items()})
    sink = " and ".join(map(without_secrets, request.sinks))
    _exit_unless_whole(summary, request.source, sink)


def _check_for_cluster(request: RunRequest, sources: list[str]) -> None:
    """Raises BadInput unless it is files, each to a file of its own."""
    if any(map(is_live, [*sources, *request.sinks])) or request.loop or not _is_to_folder(request):
        raise BadInput("--ray is for files and folders; give one folder as --sink, or none, and no --loop")


def _run_on_cluster(
    address: str,
    request: RunRequest,
    batch: Batch,
    stop: threading.Event,
    stage: Callable[[str, int | None], Callable[[], None]],
) -> BatchResult:
    with needs_extra("ray"):
        from unblur.runtime.loops.cluster import cluster, run_on_cluster
    with cluster(address):
        return run_on_cluster(request, batch, stop, stage)


def _run_batch(
    request: RunRequest, batch: Batch, stop: threading.Event, ray: str | None = None, *, json: bool
) -> None:
    there = sum(exists(target) for target in batch.targets.values())
    with progress() as bar:

        def stage(name: str, total: int | None) -> Callable[[], None]:
            task = bar.add_task(name, total=total, note="")
            return lambda: bar.advance(task)

        if ray is None or not batch.targets:
            result = run_batch(request, batch, stop, stage)
        else:
            result = _run_on_cluster(ray, request, batch, stop, stage)
    if json:
        print_json(_batch_document(result, batch))
    else:
        _print_batch(result, request, replaced=there)
    _list_left_out("skipped", batch.skipped)
    _list_left_out("could not be restored", {str(path): reason for path, reason in result.failed.items()})
    if result.summary.stopped:
        sys.stderr.write(f"unblur: interrupted; {len(result.written)} of {len(batch.targets)} files are done\n")
        raise typer.Exit(_INTERRUPTED)
    if result.failed:
        raise typer.Exit(_FAILED if result.written else _IMPOSSIBLE)


def _batch_document(result: BatchResult, batch: Batch) -> dict[str, object]:
    files = [{"source": str(source), "sink": str(target)} for source, target in result.written.items()]
    return {
        **dataclasses.asdict(result.summary),
        "device": result.device,
        "precision": result.precision,
        "files": files,
        "failed": {str(path): reason for path, reason in result.failed.items()},
        "skipped": batch.skipped,
    }


def _print_batch(result: BatchResult, request: RunRequest, *, replaced: int) -> None:
    if not result.written:
        return
    written = list(result.written.values())
    images = sum(is_image_path(path) for path in written)
    counts = [count(images, "image"), count(len(written) - images, "video")]
    what = " and ".join(count for count in counts if not count.startswith("0 "))
    if result.summary.frames > len(written):
        what += f" ({result.summary.frames} frames)"
    where = request.sinks[0] if request.sinks else str(written[0])
    if not request.sinks and len(written) > 1:
        where += f" ... {written[-1]}"
    _print_done(what, result.summary, f"{result.device}, {result.precision}", where, replaced=replaced)


def _list_left_out(what: str, files: dict[str, str]) -> None:
    """On stderr, a line each; those beyond the first 20 as a number."""
    for index, (name, reason) in enumerate(files.items()):
        if index == _LISTED:
            sys.stderr.write(f"unblur: {what}: {len(files) - _LISTED} more; --json lists all\n")
            return
        reason = reason.removeprefix(f"{name} ")
        sys.stderr.write(f"unblur: {what}: {printable(f'{name}: {reason}')}\n")


def _print_done(what: str, summary: RunSummary, how: str, where: str, *, replaced: int) -> None:
    many = summary.frames > 1
    speed = f" ({summary.fps:.2f} fps, {summary.latency_ms['p50']:.0f} ms a frame)" if many else ""
    line = f"restored {what} in {summary.seconds:.1f} s{speed} on {how}{f': {where}' if where else ''}"
    stdout.print(f"{line}{f' (replaced {replaced})' if replaced else ''}", soft_wrap=True)


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
        raise typer.Exit(_FAILED)
