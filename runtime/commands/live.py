"""What `unblur run` does with a camera: the live loop, a line of numbers while it runs, counters for others."""

import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from unblur.runtime.console import print_json, stderr, stdout
from unblur.runtime.errors import needs_extra
from unblur.runtime.live.loop import LiveResult, LiveSummary
from unblur.runtime.live.session import LiveRequest, LiveSession, open_session
from unblur.runtime.redact import without_secrets

_LINE_EVERY_S = 1.0


def run_camera(
    request: LiveRequest, stop: threading.Event, metrics: tuple[str, int] | None = None, *, json: bool = False
) -> None:
    """Run until `stop` is set or the camera is gone for good, then print what was done.

    metrics: address to serve Prometheus at; MissingExtra without its package.
    """
    with ExitStack() as stack:
        session = stack.enter_context(open_session(request))
        if metrics is not None:
            with needs_extra("metrics"):
                from unblur.runtime.prometheus import serve_metrics
            port = stack.enter_context(serve_metrics(session.stats, *metrics))
            stderr.print(f"counters at http://{metrics[0]}:{port}/metrics", soft_wrap=True)
        _print_rungs(session)
        summary = session.run(stop, on_result=_status_line(session))
        runner = session.ladder.top.runner
        device, precision = runner.device, runner.precision
    if json:
        print_json({**dataclasses.asdict(summary), "device": device, "precision": precision})
    else:
        print_summary(summary, request)


def _print_rungs(session: LiveSession) -> None:
    rungs = ", ".join(f"{cost.steps} steps {cost.ms:.0f} ms" for cost in session.ladder.costs)
    deadline_ms = session.controls.deadline_ms
    deadline = "no deadline" if deadline_ms is None else f"deadline {deadline_ms:.0f} ms"
    stderr.print(f"{session.feed.info.name}: {rungs}; {deadline}", soft_wrap=True, markup=False)


def _status_line(session: LiveSession) -> Callable[[LiveResult], None]:
    """On a terminal, one line that is written over every second."""
    shown_s = time.monotonic()

    def show(result: LiveResult) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s < _LINE_EVERY_S:
            return
        shown_s = time.monotonic()
        stats, recent = session.stats, session.stats.total.recent()
        latency = f"{recent['p50']:.0f} ms, p99 {recent['p99']:.0f} ms" if recent else "-"
        stderr.print(
            f"{stats.written} frames, {stats.dropped} dropped, {latency}, {result.restored.steps} steps, "
            f"{stats.late} late, {stats.reconnects} reconnects  ",
            end="\r",
            soft_wrap=True,
        )

    return show if stderr.is_terminal else lambda result: None


def print_summary(summary: LiveSummary, request: LiveRequest) -> None:
    """One line on stdout."""
    latency = f", latency p50 {summary.latency_ms['p50']:.0f} ms" if summary.latency_ms else ""
    steps = ", ".join(f"{frames} at {count}" for count, frames in summary.steps.items())
    stdout.print(
        f"restored {summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.2f} fps{latency}; "
        f"{summary.dropped} dropped, {summary.counters['late']} late, {summary.counters['reconnects']} reconnects; "
        f"steps: {steps or '-'}): {' and '.join(map(without_secrets, request.sinks))}",
        markup=False,
        soft_wrap=True,
    )
