"""The counters of a live loop for Prometheus. Needs the extra [metrics].

Nothing is done per frame: a scrape reads the counters that the loop keeps anyway.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
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


_REQUEST_S = 2.0  # for a request to arrive
_MOST_REQUEST_BYTES = 8192
_MOST_CONNECTIONS = 16


class _Connections:
    """Answers every request for /metrics; bounded in time, memory and descriptors.

    At most 16 connections are open. One more closes the oldest of them: whoever asks is answered, however many
    others connect and say nothing.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._open: dict[asyncio.StreamWriter, None] = {}  # in the order in which they came

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, and the connection is closed."""
        self._open[writer] = None
        if len(self._open) > _MOST_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_S)
            writer.write(self._response(request))
            await asyncio.wait_for(writer.drain(), _REQUEST_S)
            writer.close()
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            writer.transport.abort()
        finally:
            self._open.pop(writer, None)

    def _response(self, request: bytes) -> bytes:
        method, _, path = request.partition(b"\r\n")[0].partition(b" ")
        if method != b"GET" or path.split(b" ")[0] not in (b"/metrics", b"/"):
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        body = generate_latest(self._registry)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + body


@contextmanager
def serve_metrics(stats: LoopStats, host: str, port: int) -> Iterator[int]:
    """Serve them at http://host:port/metrics inside the block; gives the port, a free one for port 0.

    Raises BadInput if the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(LiveCollector(stats))
    loop = asyncio.new_event_loop()
    connections = _Connections(registry)
    try:
        server = loop.run_until_complete(
            asyncio.start_server(connections.answer, host, port, limit=_MOST_REQUEST_BYTES)
        )
    except OSError as error:
        loop.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise BadInput(f"cannot serve metrics at {host}:{port}: {reason}; choose another --metrics-port") from error
    thread = threading.Thread(target=loop.run_forever, name="unblur-metrics", daemon=True)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end(server))
        loop.close()


async def _end(server: asyncio.Server) -> None:
    """Stop listening and close what is open."""
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # in which the transports close their sockets
