"""The systemd unit in docs: it is hardened, and what it starts runs."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

UNIT = Path(__file__).resolve().parents[1] / "docs/unblur-camera.service"
MOST_EXPOSURE = 4.0  # of 10, by systemd's own count


def test_systemd_rates_the_unit_as_hardened() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={MOST_EXPOSURE * 10:.0f}",
    ]
    done = subprocess.run([*command, str(UNIT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_the_command_of_the_unit_runs_until_sigterm() -> None:
    """With a synthetic camera for the one that is not here, and any free port for the counters."""
    unit = UNIT.read_text().replace("\\\n", " ")
    program, *arguments = shlex.split(re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)[0])
    assert program.endswith("/.venv/bin/unblur")
    arguments[arguments.index("--source") + 1] = "test://moving?size=96x160&fps=30"
    arguments[arguments.index("--metrics-port") + 1] = "0"
    command = [str(Path(sys.executable).with_name("unblur")), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = next(line.split()[-1] for line in process.stderr if line.startswith("counters at "))
            wait_for_frames(address)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert stdout.startswith("wrote ")


def wait_for_frames(address: str) -> None:
    for _ in range(600):
        with urlopen(address, timeout=10) as page:
            counters = page.read().decode()
        if re.search(r"^unblur_written_total\{.+\} [1-9]", counters, re.MULTILINE):
            return
        time.sleep(0.1)
    pytest.fail(f"no frame was written within a minute:\n{counters}")
