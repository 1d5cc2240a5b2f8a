"""What `unblur run` does with cameras: one, or several on one model."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import typer

from unblur.runtime.console import print_json, stderr, stdout
from unblur.runtime.errors import BadInput, needs_extra
from unblur.runtime.loops.cameras import Cameras, open_cameras
from unblur.runtime.loops.live_loop import FrameResult
from unblur.runtime.loops.session import LiveSession, RunRequest, open_live_session
from unblur.runtime.loops.stats import LoopStats, RunSummary
from unblur.runtime.media.open_media import is_live
from unblur.runtime.media.url import without_secrets
from unblur.runtime.spec import Precision

_SOME_FAILED, _ALL_FAILED = 1, 2

Address = tuple[str, int]
"""Host and port."""

_LINE_EVERY_S = 1.0


def run_camera(request: RunRequest, stop: threading.Event, metrics: Address | None = None, *, json: bool) -> None:
    """Run until `stop` is set or the camera is gone for good, then print what was done."""
    with open_live_session(request) as session, _serving({session.capture.info.name: session.stats}, metrics):
        _print_rungs(session)
        summary = session.run(stop, on_result=_status_line(session))
        runner = session.ladder.runner
        device, precision = runner.device, runner.precision
    if json:
        print_document(summary, device, precision)
    else:
        print_summary(summary, request)


def requests_of(request: RunRequest, sources: Sequence[str]) -> list[RunRequest]:
    """One for each camera, with a sink each. Raises BadInput if the sinks do not match or a source is a file."""
    files = [source for source in sources if not is_live(source)]
    if files:
        raise BadInput(
            f"{files[0]} is a file; several sources have to be cameras or streams: restore files one by one"
        )
    if len(sources) != len(request.sinks):
        counts = f"{len(sources)} times --source and {len(request.sinks)} times --sink"
        raise BadInput(f"got {counts}; give one --sink for each --source, in the same order")
    pairs = zip(sources, request.sinks, strict=True)
    return [replace(request, source=source, sinks=(sink,)) for source, sink in pairs]


def run_cameras(
    requests: Sequence[RunRequest], stop: threading.Event, metrics: Address | None = None, *, json: bool
) -> None:
    """As `run_camera`, for several on one model. Exit code 1 if some of them failed, 2 if all did."""
    with open_cameras(requests) as cameras:
        sessions = cameras.sessions
        with _serving({name: session.stats for name, session in sessions.items()}, metrics):
            for session in sessions.values():
                _print_rungs(session)
            results = cameras.run(stop, on_turn=_cameras_line(cameras))
        runner = next(iter(sessions.values())).ladder.runner
        device, precision = runner.device, runner.precision
    if json:
        documents = [
            {"camera": each.name, **asdict(each.summary), "error": each.error and str(each.error)}
            for each in results
        ]
        print_json({"cameras": documents, "device": device, "precision": precision})
    else:
        for request, result in zip(requests, results, strict=True):
            print_summary(result.summary, request, f"{result.name}: ")
    failed = [result for result in results if result.error is not None]
    if failed:
        raise typer.Exit(_ALL_FAILED if len(failed) == len(results) else _SOME_FAILED)


@contextmanager
def _serving(cameras: Mapping[str, LoopStats], address: Address | None) -> Iterator[None]:
    """Counters for Prometheus inside the block, if there is an address to serve them at."""
    if address is None:
        yield
        return
    with needs_extra("metrics"):
        from unblur.runtime.loops.prometheus import serve_metrics
    with serve_metrics(cameras, *address) as port:
        stderr.print(f"counters at http://{address[0]}:{port}/metrics", soft_wrap=True)
        yield


def _print_rungs(session: LiveSession) -> None:
    rungs = ", ".join(f"{cost.name} {cost.ms:.0f} ms" for cost in session.ladder.costs)
    deadline_ms = session.controls.deadline_ms
    deadline = "no deadline" if deadline_ms is None else f"deadline {deadline_ms:.0f} ms"
    stderr.print(f"{session.capture.info.name}: {rungs}; {deadline}", soft_wrap=True)


def _status_line(session: LiveSession) -> Callable[[FrameResult], None]:
    """On a terminal, one line that is written over every second."""

    def line(result: FrameResult) -> str:
        stats, recent = session.stats, session.stats.total.recent()
        latency = f"{recent['p50']:.0f} ms, p99 {recent['p99']:.0f} ms, " if recent else ""
        return (
            f"{count(stats.written, 'frame')}, {stats.dropped} dropped, {latency}{stats.late} late, "
            f"{_last_rung(result, stats)}, {count(stats.reconnects, 'reconnect')}  "
        )

    every_second = _EverySecond()
    return lambda result: every_second.show(lambda: line(result))


def _last_rung(result: FrameResult, stats: LoopStats) -> str:
    return stats.rung_names[result.restored.rung - 1] if result.restored.rung else "passed on"


def _cameras_line(cameras: Cameras) -> Callable[[], None]:
    """As `_status_line`: frames written and dropped of each camera."""
    all_stats = [session.stats for session in cameras.sessions.values()]
    every_second = _EverySecond()
    return lambda: every_second.show(
        lambda: "; ".join(f"{count(stats.written, 'frame')}, {stats.dropped} dropped" for stats in all_stats)
    )


class _EverySecond:
    """Writes over a line on a terminal; does nothing where stderr is not one."""

    def __init__(self) -> None:
        self._shown_s = time.monotonic()

    def show(self, line: Callable[[], str]) -> None:
        """line: called only if a second has passed."""
        now_s = time.monotonic()
        if stderr.is_terminal and now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            stderr.print(line(), end="\r", soft_wrap=True)


def print_summary(summary: RunSummary, request: RunRequest, camera: str = "") -> None:
    """One line on stdout: how many frames were written, and what became of the others. camera: how it begins."""
    latency = f", latency p50 {summary.latency_ms['p50']:.0f} ms" if summary.latency_ms else ""
    rungs = ", ".join(f"{frames} by {name}" for name, frames in summary.rungs.items())
    where = sink_names(request.sinks) if summary.frames else ""
    stdout.print(
        f"{camera}wrote {summary.frames} of {count(summary.counters['captured'], 'frame')} in "
        f"{summary.seconds:.1f} s ({summary.fps:.2f} fps{latency}; {summary.dropped} gave way to newer ones, "
        f"{summary.late} late, {count(summary.counters['reconnects'], 'reconnect')}"
        f"{f'; {rungs}' if len(summary.rungs) > 1 else ''}){f': {where}' if where else ''}",
        soft_wrap=True,
    )


def sink_names(sinks: Sequence[str]) -> str:
    """For people, without those that leave nothing behind."""
    return " and ".join(without_secrets(sink) for sink in sinks if sink != "null:")


def count(number: int, noun: str) -> str:
    """As in `1 step` and `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_document(summary: RunSummary, device: str, precision: Precision) -> None:
    """The summary of one run as JSON on stdout."""
    print_json({**asdict(summary), "device": device, "precision": precision})
