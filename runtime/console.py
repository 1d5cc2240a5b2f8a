"""What every command of `unblur` shares: progress on stderr, one JSON document on stdout."""

import json
import logging
import math
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from unblur.runtime.errors import BadInput, printable

Stage = Callable[[str, int], Callable[[], object]]
"""Called with the name of a stage and its length; what it returns is called once per unit of work done."""


class _Plain(Console):
    """Shows a string as it is, in one line: names of files, tensors and layers are foreign, and may hold markup,
    line breaks and escape sequences. What has a colour is a `Text`. What stderr does not take is lost.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(OSError) if self.stderr else nullcontext():
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        """Rich, and click for a BrokenPipeError, exit with 1, which says here that the verdict is no."""
        raise BadInput("cannot use standard output: Broken pipe")

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


stderr = _Plain(stderr=True)
stdout = _Plain()


def progress(unit: str = "", *, auto_refresh: bool = True) -> Progress:
    """A progress bar on stderr, as a context manager; call `add_task` and `advance` on it.

    It is drawn on a terminal only: in a log file it would be noise. Tasks may carry a field `note`, shown at the
    end of the line: `add_task(text, total=n, note="")`. auto_refresh: draw it in a thread, which takes time from
    what is measured beside it; without, call `refresh`.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=stderr,
        transient=True,
        auto_refresh=auto_refresh,
        disable=not stderr.is_terminal,
    )


def silent(stage: str, total: int) -> Callable[[], object]:
    """A `Stage` that shows nothing."""
    return lambda: None


def stages_on(bar: Progress) -> Stage:
    """A `Stage` that adds a line to a progress bar."""

    def stage(name: str, total: int) -> Callable[[], object]:
        task = bar.add_task(name, total=total, note="")
        return lambda: bar.advance(task)

    return stage


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _NeverWaiting(logging.StreamHandler):  # type: ignore[type-arg]
    """Drops a line that would have to wait: a pipe that nobody reads must not stop the frames."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            writable = select.select([], [self.stream.fileno()], [], 0)[1]
        except (OSError, ValueError):  # not a file of the system, or one that is closed
            writable = [self.stream]
        if writable:
            super().emit(record)


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Show on stderr, inside the block, what unblur logs: which device runs a model, and why."""
    log, handler = logging.getLogger("unblur"), _NeverWaiting()
    handler.setFormatter(_OneLine("unblur: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def print_json(document: Mapping[str, object] | list[object]) -> None:
    """Print one JSON document on stdout. Infinite and NaN numbers, which JSON has not, become null."""
    try:
        sys.stdout.write(json.dumps(_finite(document), indent=2) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stdout.on_broken_pipe()


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
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
