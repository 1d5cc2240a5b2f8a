"""kill -9 at a few moments of every command that works for a while; `python -m tests.fuzz.kills` does more."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx", reason="NOTHING IS KILLED: pip install 'unblur[rtx]'")
MOMENTS = 5


@pytest.mark.timeout(900)  # on a machine that does other things too
def test_after_any_kill_nothing_is_lost_and_nothing_left() -> None:
    command = [sys.executable, "-m", "tests.fuzz.kills", "--moments", str(MOMENTS)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "deploy", "train", "calibrate", "build", "clip", "record",
    ]  # fmt: skip
