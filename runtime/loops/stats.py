"""What a loop counts and times: fixed memory, however many weeks it runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_LOWEST_MS = 0.01
_GROWTH = 1.01  # a percentile is right within half a percent
_BUCKETS = 1900  # up to 27 minutes; longer counts as that
_RECENT = 128


class LatencyHistogram:
    """Durations in buckets that grow by one percent each. One thread adds, any may read."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)
        self._recent_ms: NDArray[np.float64] = np.zeros(_RECENT)
        self.count = 0
        self.sum_ms = 0.0
        self.max_ms = 0.0

    def add(self, ms: float) -> None:
        """Count one duration in milliseconds."""
        self._counts[_bucket(ms)] += 1
        self._recent_ms[self.count % _RECENT] = ms
        self.count += 1
        self.sum_ms += ms
        self.max_ms = max(self.max_ms, ms)

    def merge(self, other: "LatencyHistogram") -> None:
        """Count the durations of another as well; the recent ones stay those of this."""
        self._counts += other._counts
        self.count += other.count
        self.sum_ms += other.sum_ms
        self.max_ms = max(self.max_ms, other.max_ms)

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` (0 to 100) of all lie at or below. ValueError if there are none."""
        total = np.cumsum(self._counts)
        if total[-1] == 0:
            raise ValueError("no duration was counted")
        bucket = int(np.searchsorted(total, max(percent / 100 * total[-1], 1)))
        return min(float(_LOWEST_MS * _GROWTH ** (bucket + 0.5)), self.max_ms)

    def counts_below(self, bounds_ms: Sequence[float]) -> list[int]:
        """How many durations were at most each bound, within half a percent of it."""
        total = np.cumsum(self._counts)
        return [int(total[_bucket(bound)]) for bound in bounds_ms]

    def statistics(self) -> dict[str, float]:
        """p50, p90, p99, mean and max in milliseconds; empty if nothing was counted."""
        if self.count == 0:
            return {}
        percentiles = {f"p{percent}": self.percentile_ms(percent) for percent in (50, 90, 99)}
        return {**percentiles, "mean": self.sum_ms / self.count, "max": self.max_ms}

    def recent(self) -> dict[str, float]:
        """p50 and p99 of the last 128; empty if nothing was counted."""
        recent = self._recent_ms[: min(self.count, _RECENT)]
        if recent.size == 0:
            return {}
        return {f"p{percent}": float(np.percentile(recent, percent)) for percent in (50, 99)}


def _bucket(ms: float) -> int:
    grown = np.log(max(ms, _LOWEST_MS) / _LOWEST_MS) / np.log(_GROWTH)
    return min(int(grown), _BUCKETS - 1)


@dataclass(frozen=True)
class RunSummary:
    """What one run of a loop did; the counters are those of LoopStats.

    frames: written to the sink. dropped: given up for a newer one, before or after they were restored; a file loop
        drops none. lost: could not be decoded.
    seconds: from the first read to the finished sink.
    latency_ms: of one frame: p50, p90, p99 (within half a percent), mean, max; empty if there was none. Live from
        captured to written; of a file in the network, since waiting in its queues delays nobody.
    stages_ms: the same for each stage. rungs: frames by the name of the rung, or "passed on".
    late: frames that took longer than the deadline. stopped: the caller ended it before the source did.
    """

    frames: int
    dropped: int
    lost: int
    seconds: float
    fps: float
    latency_ms: dict[str, float]
    stages_ms: dict[str, dict[str, float]]
    rungs: dict[str, int]
    late: int
    counters: dict[str, int]
    stopped: bool


@dataclass
class LoopStats:
    """Counters of a run so far. Each is written by one thread and may be read by any.

    captured: frames that came from the source. dropped: given up for a newer one before they were restored.
    written: reached the sink. dropped_at_sink: restored, but the sink was busy until a newer one came.
    passed: given on unrestored, since they were sharp. late: took longer than the deadline.
    lost: could not be decoded. stalls: times the source gave no frame for too long.
    reconnects: times it was opened again. rungs: frames by rung of the ladder, 0 passed on. rung_names: from 1 on.

    wait: from captured to taken up. restore: in the network. write: in the sink. total: from captured to written.
    """

    captured: int = 0
    dropped: int = 0
    written: int = 0
    dropped_at_sink: int = 0
    passed: int = 0
    late: int = 0
    lost: int = 0
    stalls: int = 0
    reconnects: int = 0
    rungs: Counter[int] = field(default_factory=Counter)
    rung_names: tuple[str, ...] = ()
    wait: LatencyHistogram = field(default_factory=LatencyHistogram)
    restore: LatencyHistogram = field(default_factory=LatencyHistogram)
    write: LatencyHistogram = field(default_factory=LatencyHistogram)
    total: LatencyHistogram = field(default_factory=LatencyHistogram)

    @property
    def stages(self) -> dict[str, LatencyHistogram]:
        return {"wait": self.wait, "restore": self.restore, "write": self.write, "total": self.total}

    @property
    def counters(self) -> dict[str, int]:
        """Everything that only ever grows, but the rungs."""
        return {
            "captured": self.captured,
            "dropped": self.dropped,
            "written": self.written,
            "dropped_at_sink": self.dropped_at_sink,
            "passed": self.passed,
            "late": self.late,
            "lost": self.lost,
            "stalls": self.stalls,
            "reconnects": self.reconnects,
        }

    @property
    def restored(self) -> int:
        """Frames that came out of the ladder or were passed on."""
        return sum(self.rungs.values())

    def by_rung(self) -> dict[str, int]:
        """Frames by the name of the rung, the lowest first."""
        names = ("passed on", *self.rung_names)
        return {names[rung]: frames for rung, frames in sorted(self.rungs.items())}

    def merge(self, other: "LoopStats") -> None:
        """Count what another run of the same model did as well."""
        for name, count in other.counters.items():
            setattr(self, name, getattr(self, name) + count)
        self.rung_names = self.rung_names or other.rung_names
        self.rungs += other.rungs
        for name, histogram in self.stages.items():
            histogram.merge(other.stages[name])

    def count_restored(self, rung: int, ms: float, *, late: bool) -> None:
        """Count a frame that was restored on `rung` in `ms`."""
        self.rungs[rung] += 1
        self.late += late
        self.restore.add(ms)

    def summary(self, latency: LatencyHistogram, seconds: float, *, stopped: bool) -> RunSummary:
        """The document of a run that took `seconds`; latency: the stage that counts for it."""
        return RunSummary(
            frames=self.written,
            dropped=self.dropped + self.dropped_at_sink,
            lost=self.lost,
            seconds=seconds,
            fps=self.written / seconds,
            latency_ms=latency.statistics(),
            stages_ms={name: histogram.statistics() for name, histogram in self.stages.items()},
            rungs=self.by_rung(),
            late=self.late,
            counters=self.counters,
            stopped=stopped,
        )
