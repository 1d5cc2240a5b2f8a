"""Everything a loop needs, opened from what a user typed: what `unblur run` and `unblur preview` share.

with open_live_session(RunRequest("lprn-s", "rtsp://camera/stream", sinks=("sharp.mkv",))) as session:
    summary = session.run()
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from unblur.runtime.blur import BlurGate
from unblur.runtime.errors import BadInput
from unblur.runtime.images import DEFAULT_QUALITY, MAX_PIXELS
from unblur.runtime.loops.capture import Reconnect, ReconnectingCapture
from unblur.runtime.loops.file_loop import run_file_loop
from unblur.runtime.loops.ladder import UNKNOWN_SIZE_HW, Ladder, open_ladder
from unblur.runtime.loops.live_loop import FrameResult, LiveControls, run_live_loop
from unblur.runtime.loops.restorer import FixedSteps, Restorer
from unblur.runtime.loops.stats import LoopStats, RunSummary
from unblur.runtime.media.interfaces import MediaInfo, Sink, Source
from unblur.runtime.media.open_media import DEFAULT_CRF, DEFAULT_RATE, open_sinks, open_source
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.runner import RunnerOptions

DEFAULT_TIMEOUT_S = 300.0
"""Of one frame: generous, since a 4K frame on a slow CPU takes minutes."""


@dataclass(frozen=True)
class RunRequest:
    """What to restore, and how. source, sinks: see `open_source` and `open_sinks`.

    options: with `steps` that number alone is run. fallbacks: models below it on the ladder, see `open_ladder`.
    deadline_ms: of a frame. None is the frame time of a camera, and no deadline for a file; inf is none.
    timeout_s: of a frame, see InferenceTimeout.
    gate: passes sharp frames on. reconnect: when to open it again. Both are for live sources.
    rate: frames per second of a folder of images. loop: begin a file or a folder again at its end. crf, quality,
    keep_depth: see `Encoding` and `Decoding`. strength: see `Overlap`.
    """

    model: str | Path
    source: str
    sinks: tuple[str, ...]
    options: RunnerOptions = RunnerOptions()
    fallbacks: tuple[str, ...] = ()
    deadline_ms: float | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    gate: BlurGate | None = None
    reconnect: Reconnect = field(default_factory=Reconnect)
    crf: int = DEFAULT_CRF
    quality: int = DEFAULT_QUALITY
    keep_depth: bool = False
    strength: float = 1
    rate: Fraction = DEFAULT_RATE
    loop: bool = False
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class FileSession:
    """An open file, model and sink; the loop has not started yet."""

    source: Source
    restorer: FixedSteps | Ladder
    sink: Sink
    request: RunRequest

    def run(self, stop: threading.Event | None = None, on_frame: Callable[[], None] = lambda: None) -> RunSummary:
        """See `run_file_loop`."""
        return restore_file(self.request, self.source, self.restorer, self.sink, stop=stop, on_frame=on_frame)


@contextmanager
def open_file_session(request: RunRequest) -> Iterator[FileSession]:
    """Open the source, then the model, then the sinks; close them in turn. Raises what each of them raises.

    What can be known of the sinks before the model is there is raised before.
    """
    with open_file(request, request.source) as source:
        file_sink(request, request.sinks, source.info)
        with (
            open_file_restorer(request, source.info.size_hw) as restorer,
            file_sink(request, request.sinks, restored_info(source.info, restorer)) as sink,
        ):
            yield FileSession(source, restorer, sink, request)


def open_file(request: RunRequest, source: str) -> Source:
    """The source as the request wants it read."""
    return open_source(
        source,
        max_pixels=request.max_pixels,
        rate=request.rate,
        loop=request.loop,
        keep_depth=request.keep_depth,
    )


def file_sink(request: RunRequest, sinks: Sequence[str], info: MediaInfo) -> Sink:
    """The sinks as the request wants them written, not entered yet."""
    return open_sinks(sinks, info, crf=request.crf, quality=request.quality)


def restore_file(
    request: RunRequest,
    source: Source,
    restorer: Restorer,
    sink: Sink,
    *,
    stats: LoopStats | None = None,
    stop: threading.Event | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> RunSummary:
    """`run_file_loop` as the request wants it."""
    return run_file_loop(
        source,
        restorer,
        sink,
        strength=request.strength,
        deadline_ms=request.deadline_ms,
        timeout_s=request.timeout_s,
        stats=stats,
        stop=stop,
        on_frame=on_frame,
    )


def open_file_restorer(request: RunRequest, size_hw: tuple[int, int] | None) -> FixedSteps | Ladder:
    """The model for every frame, or with a deadline the highest rung that fits; timed on frames of that size."""
    restorer: FixedSteps | Ladder
    if request.deadline_ms is None and request.fallbacks:
        raise BadInput("a fallback is for frames that miss a deadline; give --deadline-ms for a file")
    if request.deadline_ms is None:
        restorer = FixedSteps(Deblurrer(request.model, request.options))
    else:
        restorer = open_rungs(request, size_hw)
    if request.strength < 1 and restorer.runner.spec.scale != 1:
        restorer.__exit__(None, None, None)
        raise BadInput(f"{request.model} gives larger images than it takes; --strength is for networks that do not")
    return restorer


@dataclass(frozen=True)
class LiveSession:
    """An open camera, ladder and sink; the loop has not started yet."""

    capture: ReconnectingCapture
    ladder: Ladder
    sink: Sink
    controls: LiveControls
    stats: LoopStats = field(default_factory=LoopStats)
    timeout_s: float = DEFAULT_TIMEOUT_S

    def run(
        self,
        stop: threading.Event | None = None,
        on_result: Callable[[FrameResult], None] = lambda result: None,
        restorer: Restorer | None = None,
    ) -> RunSummary:
        """See `run_live_loop`. restorer: what restores instead of the ladder."""
        return run_live_loop(
            self.capture,
            restorer or self.ladder,
            self.sink,
            self.stats,
            controls=self.controls,
            stop=stop,
            timeout_s=self.timeout_s,
            on_result=on_result,
        )


@contextmanager
def open_live_session(
    request: RunRequest, *, shared: Ladder | None = None, on_frame: Callable[[], object] = lambda: None
) -> Iterator[LiveSession]:
    """Open the source, then the ladder for its size, then the sinks for its size; close them in turn.

    shared: a ladder whose models to use instead of opening the request's. on_frame: see ReconnectingCapture.
    Raises what each of them raises: nothing runs until all are there.
    """
    stats = LoopStats()

    def connect() -> Source:
        return open_source(request.source, max_pixels=request.max_pixels)

    with ReconnectingCapture(connect, stats, request.reconnect, on_frame=on_frame) as capture:
        info = capture.info
        open_sinks(
            request.sinks, info, crf=request.crf
        )  # what is wrong with them is said before the model is opened
        with (
            _rungs(request, info, shared) as ladder,
            open_sinks(request.sinks, restored_info(info, ladder), crf=request.crf, retry=True) as sink,
        ):
            controls = LiveControls(
                deadline_ms=_deadline_ms(request, info), gate=request.gate, strength=request.strength
            )
            yield LiveSession(capture, ladder, sink, controls, stats, request.timeout_s)


def restored_info(info: MediaInfo, restorer: Restorer) -> MediaInfo:
    """What the sinks are given: of another size than the source where the network scales."""
    return info if info.size_hw is None else replace(info, size_hw=restorer.runner.spec.output_hw(info.size_hw))


def open_rungs(request: RunRequest, size_hw: tuple[int, int] | None) -> Ladder:
    """The ladder of a request, timed on frames of the source's size."""
    return open_ladder(request.model, size_hw or UNKNOWN_SIZE_HW, request.options, fallbacks=request.fallbacks)


def _rungs(request: RunRequest, info: MediaInfo, shared: Ladder | None) -> Ladder:
    return open_rungs(request, info.size_hw) if shared is None else shared.at_size(info.size_hw or UNKNOWN_SIZE_HW)


def _deadline_ms(request: RunRequest, info: MediaInfo) -> float | None:
    """None where there is nothing to choose: the rung is then always the highest."""
    if request.deadline_ms is None:
        return float(1000 / info.rate)
    return None if request.deadline_ms == float("inf") else request.deadline_ms
