"""The curves of the preview page: how the loop did over the last two minutes."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from unblur.runtime.live.stats import LiveStats
from unblur.runtime.telemetry.temperature import hottest_c

SAMPLE_EVERY_S = 0.5
_KEPT = 240
_WINDOW = 6  # samples that a rate is taken over: three seconds, so that slow networks show no comb


@dataclass(frozen=True)
class Sample:
    """What a chart shows of one moment; None is unknown.

    fps: frames restored per second. p50_ms, p99_ms: from captured to written, of the last 128 frames.
    steps: mean of them per frame. dropped: frames per second given up for a newer one.
    """

    fps: float
    p50_ms: float | None
    p99_ms: float | None
    steps: float | None
    dropped: float
    temperature_c: float | None


@dataclass(frozen=True)
class _Reading:
    at_s: float
    frames: int
    steps: int
    dropped: int


class History:
    """Samples of the counters of a loop; call `sample` every `SAMPLE_EVERY_S` seconds."""

    def __init__(
        self,
        stats: LiveStats,
        *,
        clock: Callable[[], float] = time.monotonic,
        read_temperature_c: Callable[[], float | None] = hottest_c,
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._read_temperature_c = read_temperature_c
        self._readings = deque([self._read()], maxlen=_WINDOW)
        self.samples: deque[Sample] = deque(maxlen=_KEPT)

    def sample(self) -> Sample:
        """Take a sample, and keep it with the last 240."""
        earlier, now = self._readings[0], self._read()
        self._readings.append(now)
        frames, seconds = now.frames - earlier.frames, now.at_s - earlier.at_s
        latency = self._stats.total.recent()
        sample = Sample(
            fps=frames / seconds,
            p50_ms=latency.get("p50"),
            p99_ms=latency.get("p99"),
            steps=(now.steps - earlier.steps) / frames if frames else None,
            dropped=(now.dropped - earlier.dropped) / seconds,
            temperature_c=self._read_temperature_c(),
        )
        self.samples.append(sample)
        return sample

    def _read(self) -> _Reading:
        steps = dict(self._stats.steps)  # a copy: the loop goes on counting
        return _Reading(
            self._clock(),
            frames=sum(steps.values()),
            steps=sum(count * frames for count, frames in steps.items()),
            dropped=self._stats.dropped + self._stats.dropped_at_sink,
        )
