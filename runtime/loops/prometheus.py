"""The counters of a live loop for Prometheus. Needs the extra [metrics].

Nothing is done per frame: a scrape reads the counters that the loop keeps anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.stats import LoopStats

_BOUNDS_MS = (1, 2, 5, 10, 20, 33, 50, 67, 100, 200, 500, 1000, 2000, 5000)


class LiveCollector(Collector):
    """`unblur_<counter>_total`, `unblur_steps_total{steps}` and the histogram `unblur_stage_seconds{stage}`."""

    def __init__(self, stats: LoopStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        for name, count in self._stats.counters.items():
            yield CounterMetricFamily(f"unblur_{name}", f"Frames or events: {name}, see LoopStats.", value=count)
        steps = CounterMetricFamily(
            "unblur_steps", "Frames restored with so many recursion steps.", labels=["steps"]
        )
        for count, frames in sorted(self._stats.steps.items()):
            steps.add_metric([str(count)], frames)
        yield steps
        stages = HistogramMetricFamily("unblur_stage_seconds", "Time of a frame in each stage.", labels=["stage"])
        for name, histogram in self._stats.stages.items():
            below = histogram.counts_below(_BOUNDS_MS)
            buckets = [(str(bound / 1e3), count) for bound, count in zip(_BOUNDS_MS, below, strict=True)]
            stages.add_metric([name], [*buckets, ("+Inf", histogram.count)], sum_value=histogram.sum_ms / 1e3)
        yield stages


@contextmanager
def serve_metrics(stats: LoopStats, host: str, port: int) -> Iterator[int]:
    """Serve them at http://host:port/metrics inside the block; gives the port, a free one for port 0.

    Raises BadInput if the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(LiveCollector(stats))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise BadInput(
            f"cannot serve metrics at {host}:{port}: {error.strerror}; choose another --metrics-port"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
