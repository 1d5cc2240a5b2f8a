"""`unblur preview` as a user types it: a real process that ends when it is told to."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preview_host import SOURCE, get, watching

TOKEN = "a-token-of-24-characters"
COMMAND = [sys.executable, "-m", "unblur.runtime.cli.main", "preview"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_somebody_watches(tiny_onnx: Path, number: signal.Signals) -> None:
    options = ["--source", SOURCE, "--port", "0", "--host", "0.0.0.0", "--threads", "1", "--json"]
    environment = {**os.environ, "UNBLUR_PREVIEW_TOKEN": TOKEN}
    with subprocess.Popen(
        [*COMMAND, str(tiny_onnx), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        shown = next(line for line in process.stderr if line.startswith("watch it at "))
        assert TOKEN not in shown  # stderr of a service is a log
        url = shown.split()[3].replace("?token=...", f"?token={TOKEN}")
        cookie = get(url).headers["set-cookie"].partition(";")[0]
        with watching(url, Cookie=cookie) as page:
            assert page.next_picture()["rung"] >= 1
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


def test_a_random_token_is_not_made_for_a_log(tiny_onnx: Path) -> None:
    command = [*COMMAND, str(tiny_onnx), "--source", SOURCE, "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = "unblur: a page at 0.0.0.0 needs a token, which is not written to a log; give --token-file\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_a_token_file_that_cannot_be_used(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    command = [*COMMAND, str(tiny_onnx), "--source", SOURCE, "--token-file", str(tmp_path / "token")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = f"unblur: {tmp_path}/token is empty, expected a password or a token in its first line\n"
    assert (done.returncode, done.stderr) == (2, expected)
