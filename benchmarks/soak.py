"""A camera that dies every minute, for half an hour: does `unblur run` come back, and stay the same size?

    python -m benchmarks.soak --minutes 30

FFmpeg serves a stream over HTTP and is killed every `--kill-every` seconds. Read from outside, by the counters that
Prometheus reads and by the size of the process. Expected: frames after every kill, and resident memory in the last
third of the run at most 5 percent above that of the first. Needs ffmpeg; Linux only.
"""

import re
import signal
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from json import loads
from typing import Annotated

import typer

from benchmarks.command import Json, Model, NotMeasured, print_report, require_program, run, unblur
from benchmarks.figures import Figure, Report
from benchmarks.memory import resident_mib

SIZE, FPS = "160x96", 15
MOST_GROWTH_PERCENT = 5.0
_SAMPLE_S = 5.0


def main(
    model: Model = "lprn-n",
    minutes: float = 30,
    kill_every: Annotated[float, typer.Option(help="Seconds between two deaths of the camera.")] = 60,
    json: Json = False,
) -> None:
    """Check whether the loop came back after each kill and how its memory grew; exit 1 if not, or by too much."""
    require_program("ffmpeg")
    with closing(_Camera(_free_port())) as camera:
        metrics_port = _free_port()
        command = unblur("run", model, "--source", camera.url, "--sink", "null:", "--stall-s", "3", "--json")
        command += ["--metrics-port", str(metrics_port)]
        loop = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        memory_mib, frames_between_kills = list[float](), list[int]()
        ends_s = time.monotonic() + 60 * minutes
        while time.monotonic() < ends_s and loop.poll() is None:
            killed_s, before = time.monotonic(), _written(metrics_port)
            while time.monotonic() < min(killed_s + kill_every, ends_s) and loop.poll() is None:
                time.sleep(_SAMPLE_S)
                memory_mib += [resident_mib(loop.pid)] if loop.poll() is None else []
            frames_between_kills.append(_written(metrics_port) - before)
            camera.die_and_come_back()
        loop.send_signal(signal.SIGTERM)
        document = loop.communicate(timeout=60)[0]
    if loop.returncode:
        raise NotMeasured(f"unblur run ended with {loop.returncode} after {len(frames_between_kills)} kills")
    print_report(_report(memory_mib, frames_between_kills, loads(document)), json=json)


def _report(memory_mib: Sequence[float], frames_between_kills: Sequence[int], summary: dict[str, object]) -> Report:
    third = max(len(memory_mib) // 3, 1)
    growth = statistics.median(memory_mib[-third:]) / statistics.median(memory_mib[:third])
    came_back = sum(frames > 0 for frames in frames_between_kills) / len(frames_between_kills)
    figures = (
        Figure("came back after a kill", "%", 100 * came_back, "higher", asked=100),
        Figure("growth of memory", "%", 100 * (growth - 1), "lower", asked=MOST_GROWTH_PERCENT),
    )
    details = {
        "frames_between_kills": frames_between_kills,
        "memory_mib": {"first": memory_mib[0], "last": memory_mib[-1], "most": max(memory_mib)},
        "counters": summary["counters"],
        "latency_ms": summary["latency_ms"],
    }
    return Report("soak", figures, details)


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
    run(main)
