"""`unblur preview` as a user types it: a real process that ends when it is told to."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preview_host import SOURCE, get, watching

COMMAND = [sys.executable, "-m", "unblur.runtime.cli.main", "preview"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_somebody_watches(tiny_onnx: Path, number: signal.Signals) -> None:
    options = ["--source", SOURCE, "--port", "0", "--host", "0.0.0.0", "--threads", "1", "--json"]
    with subprocess.Popen(
        [*COMMAND, str(tiny_onnx), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        url = next(line for line in process.stderr if line.startswith("watch it at ")).split()[-1]
        cookie = get(url).headers["set-cookie"].partition(";")[0]
        with watching(url, Cookie=cookie) as page:
            assert page.next_picture()["steps"] >= 1
            process.send_signal(number)
            assert page.how_it_was_closed()[0] == 1012  # the service restarts
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, "")
    assert json.loads(stdout)["frames"] > 0


def test_the_missing_extra_is_named(tiny_onnx: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from unblur.runtime.cli.main import main; main()"
    command = [sys.executable, "-c", code, "preview", str(tiny_onnx), "--source", SOURCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = "unblur: this command needs the Python package 'uvicorn': pip install 'unblur[preview]'\n"
    assert (done.returncode, done.stderr) == (2, expected)
