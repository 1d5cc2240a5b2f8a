"""A camera that dies every minute, for half an hour: does `unblur run` come back, and stay the same size?

    python -m benchmarks.soak --minutes 30

FFmpeg serves a stream over HTTP and is killed every `--kill-every` seconds. Read from outside, by the counters that
Prometheus reads and by the size of the process. Expected: frames after every kill, and resident memory in the last
third of the run at most 5 percent above that of the first. Needs ffmpeg; Linux only.
"""

import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

SIZE, FPS = "160x96", 15
MOST_GROWTH = 1.05
_SAMPLE_S = 5.0


def main(
    model: Annotated[str, typer.Option(help="A shipped preset or a bundle.")] = "lprn-n",
    minutes: float = 30,
    kill_every: Annotated[float, typer.Option(help="Seconds between two deaths of the camera.")] = 60,
) -> None:
    """Print one JSON document; exit 1 if the loop did not come back after each kill or its memory grew."""
    camera_port, metrics_port = _free_port(), _free_port()
    camera = _Camera(camera_port)
    command = [sys.executable, "-m", "unblur.runtime.cli", "run", model, "--source", camera.url]
    command += ["--sink", "null:", "--stall-s", "3", "--metrics-port", str(metrics_port), "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    memory_mb, frames_between_kills = list[float](), list[int]()
    ends_s = time.monotonic() + 60 * minutes
    while time.monotonic() < ends_s:
        killed_s, before = time.monotonic(), _written(metrics_port)
        while time.monotonic() < min(killed_s + kill_every, ends_s):
            time.sleep(_SAMPLE_S)
            memory_mb.append(_resident_mb(run.pid))
        frames_between_kills.append(_written(metrics_port) - before)
        camera.die_and_come_back()
    run.send_signal(signal.SIGTERM)
    summary = json.loads(run.communicate(timeout=60)[0])
    camera.close()
    third = len(memory_mb) // 3
    growth = statistics.median(memory_mb[-third:]) / statistics.median(memory_mb[:third])
    came_back = min(frames_between_kills) > 0
    document = {
        "minutes": minutes,
        "kills": len(frames_between_kills),
        "fewest_frames_between_kills": min(frames_between_kills),
        "memory_growth": round(growth, 4),
        "memory_mb": {
            "first": round(memory_mb[0], 1),
            "last": round(memory_mb[-1], 1),
            "most": round(max(memory_mb), 1),
        },
        "exit_code": run.returncode,
        "counters": summary["counters"],
        "latency_ms": summary["latency_ms"],
    }
    print(json.dumps(document, indent=1))
    sys.exit(0 if came_back and growth <= MOST_GROWTH and run.returncode == 0 else 1)


class _Camera:
    """FFmpeg, waiting for one reader at a time."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/camera.ts"
        self._start()

    def die_and_come_back(self) -> None:
        self.close()
        time.sleep(1)
        self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        source = ["-re", "-f", "lavfi", "-i", f"testsrc2=size={SIZE}:rate={FPS}"]
        encoder = ["-c:v", "mpeg2video", "-g", "15", "-f", "mpegts", "-listen", "1", self.url]
        self._process = subprocess.Popen(["ffmpeg", "-v", "quiet", *source, *encoder])
        time.sleep(1)


def _resident_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _written(port: int) -> int:
    """Frames written so far; 0 while the counters are not served yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            counted = re.search(r"^unblur_written_total (\S+)$", answer.read().decode(), re.MULTILINE)
    except OSError:
        return 0
    return int(float(counted[1])) if counted else 0


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    typer.run(main)
