"""A camera that fails twice a minute, for half an hour: does `unblur run` come back, and stay the same size?

    python -m benchmarks.soak --minutes 30 -o soak.json

FFmpeg serves a stream over HTTP. Once every `--every` seconds it is killed, and once stopped without closing its
connection, for `--stall-s` seconds, as by a cable that was pulled. Read from outside: the counters that Prometheus
reads, the size of the process and its threads. Expected: frames after every failure, and in the last third of the
run at most 5 percent more resident memory and threads than in the first. Needs ffmpeg; Linux only.
"""

import json as json_module
import re
import signal
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import Json, Model, NotMeasured, print_report, require_program, run, unblur
from benchmarks.figures import Figure, Report
from benchmarks.memory import resident_mib
from unblur.runtime.cli.options import output_option
from unblur.runtime.files import atomic_file

SIZE, FPS = "160x96", 15
MOST_GROWTH_PERCENT = 5.0
_SAMPLE_S, _STARTS_S = 5.0, 120.0


def main(
    model: Model = "lprn-n",
    minutes: float = 30,
    every: Annotated[float, typer.Option(help="Seconds in which the camera is killed once and stalls once.")] = 60,
    stall_s: Annotated[float, typer.Option(help="Seconds that it stalls.")] = 10,
    output: Annotated[Path | None, output_option("Write the JSON document to this file too.")] = None,
    json: Json = False,
) -> None:
    """Check whether the loop came back after each failure and how it grew; exit 1 if not, or by too much."""
    require_program("ffmpeg")
    with closing(_Camera(_free_port())) as camera:
        watch = _Watch.start(model, camera.url)
        watch.until_it_runs()
        failures: list[Callable[[], None]] = [camera.die, lambda: camera.stall(stall_s)]
        ends_s = time.monotonic() + 60 * minutes
        while time.monotonic() < ends_s and watch.is_running:
            watch.until(min(time.monotonic() + every / len(failures), ends_s))
            failures.append(failures.pop(0))
            failures[-1]()
        summary = watch.end()
    report = _report(watch, summary, minutes)
    if output is not None:
        with atomic_file(output) as temporary:
            temporary.write_text(json_module.dumps(report.document(), indent=1) + "\n")
    print_report(report, json=json)


@dataclass
class _Watch:
    """A loop, from outside: a sample every few seconds, and the frames between two failures."""

    loop: "subprocess.Popen[str]"
    metrics_port: int
    memory_mib: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    @classmethod
    def start(cls, model: str, url: str) -> "_Watch":
        port = _free_port()
        command = unblur("run", model, "--source", url, "--sink", "null:", "--stall-s", "3", "--json")
        command += ["--metrics-port", str(port)]
        return cls(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True), port)

    @property
    def is_running(self) -> bool:
        return self.loop.poll() is None

    def until_it_runs(self) -> None:
        """Wait for the first frames: loading a model is not growth."""
        end_s = time.monotonic() + _STARTS_S
        while not _written(self.metrics_port):
            if not self.is_running or time.monotonic() > end_s:
                raise NotMeasured("unblur run wrote no frame of a camera that works")
            time.sleep(1)

    def until(self, end_s: float) -> None:
        """Note what there is, up to a time of the clock."""
        before = _written(self.metrics_port)
        while time.monotonic() < end_s and self.is_running:
            time.sleep(min(_SAMPLE_S, max(end_s - time.monotonic(), 0.1)))
            if self.is_running:
                self.memory_mib.append(resident_mib(self.loop.pid))
                self.threads.append(len(list(Path(f"/proc/{self.loop.pid}/task").iterdir())))
        self.frames.append(_written(self.metrics_port) - before)

    def end(self) -> dict[str, object]:
        """What it printed; NotMeasured if it had ended by itself."""
        self.loop.send_signal(signal.SIGTERM)
        document = self.loop.communicate(timeout=60)[0]
        if self.loop.returncode:
            raise NotMeasured(f"unblur run ended with {self.loop.returncode} after {len(self.frames)} failures")
        summary: dict[str, object] = json_module.loads(document)
        return summary


def _report(watch: _Watch, summary: dict[str, object], minutes: float) -> Report:
    came_back = 100 * sum(frames > 0 for frames in watch.frames) / len(watch.frames)
    figures = (
        Figure("came back after a failure", "%", came_back, "higher", asked=100),
        Figure("growth of memory", "%", _growth_percent(watch.memory_mib), "lower", asked=MOST_GROWTH_PERCENT),
        Figure("growth of threads", "%", _growth_percent(watch.threads), "lower", asked=MOST_GROWTH_PERCENT),
    )
    details = {
        "minutes": minutes,
        "failures": len(watch.frames),
        "frames_between_failures": watch.frames,
        "memory_mib": _span(watch.memory_mib),
        "threads": _span(watch.threads),
        "counters": summary["counters"],
        "latency_ms": summary["latency_ms"],
    }
    return Report("soak", figures, details)


def _growth_percent(samples: Sequence[float]) -> float:
    """Of the median of the last third over that of the first."""
    third = max(len(samples) // 3, 1)
    return 100 * (statistics.median(samples[-third:]) / statistics.median(samples[:third]) - 1)


def _span(samples: Sequence[float]) -> dict[str, float]:
    return {"first": samples[0], "median": statistics.median(samples), "last": samples[-1], "most": max(samples)}


class _Camera:
    """FFmpeg, waiting for one reader at a time."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/camera.ts"
        self._start()

    def die(self) -> None:
        """And come back after a second."""
        self.close()
        time.sleep(1)
        self._start()

    def stall(self, seconds: float) -> None:
        """Send nothing for so long, with the connection open; then die and come back."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.die()

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
