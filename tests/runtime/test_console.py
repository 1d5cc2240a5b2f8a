"""One JSON document on stdout, valid whatever the numbers; progress on stderr."""

import json
import logging
import math
import os
import signal
from contextlib import suppress

import pytest

from unblur.runtime.console import log_on_stderr, print_json, progress


def test_numbers_that_json_has_not_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"db": [math.inf, math.nan, 1.5], "inner": {"a": -math.inf, "b": (1, None)}})
    out = capsys.readouterr().out
    assert json.loads(out) == {"db": [None, None, 1.5], "inner": {"a": None, "b": [1, None]}}


def test_progress_leaves_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as bar:
        bar.advance(bar.add_task("reading", total=1, note=""))
    assert capsys.readouterr().out == ""


def test_a_log_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        signal.alarm(5)  # ends the tests, rather than that they wait for ever
        with log_on_stderr():
            logging.getLogger("unblur").warning("the camera is opened again")
        signal.alarm(0)
        os.read(reading, 65536)  # so that closing it does not wait
