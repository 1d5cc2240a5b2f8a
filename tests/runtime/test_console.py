"""One JSON document on stdout, valid whatever the numbers; progress on stderr."""

import json
import math

import pytest

from unblur.runtime.console import print_json, progress


def test_numbers_that_json_has_not_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"db": [math.inf, math.nan, 1.5], "inner": {"a": -math.inf, "b": (1, None)}})
    out = capsys.readouterr().out
    assert json.loads(out) == {"db": [None, None, 1.5], "inner": {"a": None, "b": [1, None]}}


def test_progress_leaves_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as bar:
        bar.advance(bar.add_task("reading", total=1, note=""))
    assert capsys.readouterr().out == ""
