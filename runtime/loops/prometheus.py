"""The counters of the cameras of a process for Prometheus. Needs the extra [metrics].

Nothing is done per frame: a scrape reads the counters that the loop keeps anyway.
"""

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.stats import LatencyHistogram, LoopStats

_BOUNDS_MS = (1, 2, 5, 10, 20, 33, 50, 67, 100, 200, 500, 1000, 2000, 5000)


class LiveCollector(Collector):
    """`unblur_<counter>_total{camera}`, `unblur_rung_frames_total{camera,rung}` and the histogram
    `unblur_stage_seconds{camera,stage}`.
    """

    def __init__(self, cameras: Mapping[str, LoopStats]) -> None:
        self._cameras = cameras

    def collect(self) -> Iterator[Metric]:
        for name in LoopStats().counters:
            text = f"Frames or events: {name}, see LoopStats."
            counter = CounterMetricFamily(f"unblur_{name}", text, labels=["camera"])
            for camera, stats in self._cameras.items():
                counter.add_metric([camera], stats.counters[name])
            yield counter
        text = "Frames by the rung of the ladder that restored them."
        rungs = CounterMetricFamily("unblur_rung_frames", text, labels=["camera", "rung"])
        text = "Time of a frame in each stage."
        stages = HistogramMetricFamily("unblur_stage_seconds", text, labels=["camera", "stage"])
        for camera, stats in self._cameras.items():
            for rung, frames in stats.by_rung().items():
                rungs.add_metric([camera, rung], frames)
            for stage, histogram in stats.stages.items():
                stages.add_metric([camera, stage], _buckets(histogram), sum_value=histogram.sum_ms / 1e3)
        yield rungs
        yield stages


def _buckets(histogram: LatencyHistogram) -> list[tuple[str, float]]:
    """(upper bound in seconds, durations up to it)"""
    below = histogram.counts_below(_BOUNDS_MS)
    bounds = [str(bound / 1e3) for bound in _BOUNDS_MS]
    return [*zip(bounds, below, strict=True), ("+Inf", histogram.count)]


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
def serve_metrics(cameras: Mapping[str, LoopStats], host: str, port: int) -> Iterator[int]:
    """Serve them at http://host:port/metrics inside the block; gives the port, a free one for port 0.

    cameras: the counters of each, by the name that is its label.
    Raises BadInput if the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(LiveCollector(cameras))
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
