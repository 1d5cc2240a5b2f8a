"""What systemd is told, by a socket as systemd has it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unblur.runtime.loops.live_loop import ServiceNotifier


@pytest.mark.realtime
def test_a_service_reports_that_it_is_ready_alive_and_stopping(tiny_onnx: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        command = [sys.executable, "-m", "unblur.runtime.cli.main", "run", str(tiny_onnx), "--threads", "1"]
        command += ["--source", "test://moving?size=64x96&fps=20", "--sink", "null:", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        try:
            assert [systemd.recv(100) for _ in range(4)] == [b"READY=1", *3 * [b"WATCHDOG=1"]]
            process.send_signal(signal.SIGTERM)
            while (message := systemd.recv(100)) == b"WATCHDOG=1":
                pass
            assert message == b"STOPPING=1"
            assert json.loads(process.communicate(timeout=20)[0])["frames"] > 0
        finally:
            process.kill()


def test_nothing_is_sent_where_systemd_does_not_ask() -> None:
    notifier = ServiceNotifier({})
    notifier.ready()
    notifier.alive()


def test_a_socket_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    notifier = ServiceNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000"})
    notifier.ready()
    time.sleep(0.001)
    notifier.alive()
