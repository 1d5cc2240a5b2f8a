"""One benchmark in a process of its own, that ends with all it started."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.catalogue import Plan
from benchmarks.figures import report_from_text
from benchmarks.parts import say
from benchmarks.results import Outcome

ROOT = Path(__file__).parents[1]
_GRACE_S = 10


def measure(name: str, plan: Plan, limit_s: float | None = None) -> Outcome:
    """Run `python -m benchmarks.NAME --json` with the options of the plan; its progress goes on to stderr.

    One that fails, tells nothing useful or takes longer than `limit_s`, by default five times what is planned and a
    minute, has a `failure` of one line.
    """
    began_s = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *plan.options]
    ended = _run(command, 5 * plan.seconds + 60 if limit_s is None else limit_s)
    outcome = Outcome(name, plan.options, round(time.monotonic() - began_s, 1))
    return _with_report(outcome, ended)


@dataclass(frozen=True)
class _Ended:
    """code: None if it was ended for its time. last: line of stderr that holds something."""

    code: int | None
    stdout: str
    last: str


def _with_report(outcome: Outcome, ended: _Ended) -> Outcome:
    if ended.code is None:
        return replace(outcome, failure=f"it was ended after {outcome.seconds:.0f} s, far more than it should take")
    if ended.code not in (0, 1) or not ended.stdout:
        return replace(outcome, failure=ended.last or f"it ended with {ended.code} and told nothing")
    try:
        report = report_from_text(ended.stdout, outcome.benchmark)
    except ValueError as error:
        return replace(outcome, failure=f"it printed no report: {error}")
    return replace(outcome, figures=report.figures, details=report.details)


def _run(command: list[str], limit_s: float) -> _Ended:
    last, expired = "", threading.Event()

    def expire() -> None:
        expired.set()
        _end(process)

    with (
        tempfile.TemporaryFile("w+") as stdout,
        subprocess.Popen(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
        ) as process,
    ):
        timer = threading.Timer(limit_s, expire)
        timer.start()
        try:
            for line in process.stderr or ():
                say(f"  {line.rstrip()}")
                last = line.strip() or last
            process.wait()
        finally:
            timer.cancel()
            _end(process)
        stdout.seek(0)
        return _Ended(None if expired.is_set() else process.returncode, stdout.read(), last)


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is left of it and of what it started: first as Ctrl-C does, so that temporary files go too."""
    for kind in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
