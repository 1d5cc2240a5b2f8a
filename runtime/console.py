"""What every command of `unblur` shares: progress on stderr, one JSON document on stdout."""

import json
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unblur.runtime.errors import printable

Stage = Callable[[str, int], Callable[[], object]]
"""Called with the name of a stage and its length; what it returns is called once per unit of work done."""

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


def progress(unit: str = "", *, auto_refresh: bool = True) -> Progress:
    """A progress bar on stderr, as a context manager; call `add_task` and `advance` on it.

    It is drawn on a terminal only: in a log file it would be noise. Tasks may carry a field `note`, shown at the
    end of the line: `add_task(text, total=n, note="")`. auto_refresh: draw it in a thread, which takes time from
    what is measured beside it; without, call `refresh`.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
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


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Show on stderr, inside the block, what unblur logs: which device runs a model, and why."""
    log, handler = logging.getLogger("unblur"), logging.StreamHandler()
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
    json.dump(_finite(document), sys.stdout, indent=2)
    sys.stdout.write("\n")


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
