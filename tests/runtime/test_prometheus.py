"""A scrape over HTTP tells what the loop counted."""

import socket
import threading
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.prometheus import serve_metrics
from unblur.runtime.loops.stats import LoopStats

DOOR = ("camera", "door")


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def test_counters_steps_and_stages() -> None:
    stats = LoopStats(captured=10, dropped=3, reconnects=1)
    stats.rung_names = ("lprn-n", "lprn-s")
    stats.rungs.update({1: 4, 2: 2})
    for ms in (4.0, 40.0, 400.0):
        stats.restore.add(ms)
    with serve_metrics({"door": stats}, "127.0.0.1", 0) as port:
        samples = scrape(port)
        stats.captured = 11
        assert scrape(port)["unblur_captured_total", (DOOR,)] == 11
    assert samples["unblur_captured_total", (DOOR,)] == 10
    assert samples["unblur_dropped_total", (DOOR,)] == 3
    assert samples["unblur_rung_frames_total", (DOOR, ("rung", "lprn-s"))] == 2
    stage = ("stage", "restore")
    assert samples["unblur_stage_seconds_bucket", (DOOR, ("le", "0.05"), stage)] == 2
    assert samples["unblur_stage_seconds_bucket", (DOOR, ("le", "+Inf"), stage)] == 3
    assert samples["unblur_stage_seconds_sum", (DOOR, stage)] == pytest.approx(0.444)


def test_a_port_that_is_taken_is_one_line_and_a_left_one_is_free_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(BadInput, match=f"cannot serve metrics at 127.0.0.1:{port}: .+; choose another"),
            serve_metrics({}, "127.0.0.1", port),
        ):
            pass
    with serve_metrics({}, "127.0.0.1", port):
        pass


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_who_asks_is_answered_among_a_thousand_who_say_nothing() -> None:
    """Descriptors and threads are bounded, and a request that does not arrive is given up."""
    threads = threading.active_count()
    with serve_metrics({"door": LoopStats(captured=7)}, "127.0.0.1", 0) as port, ExitStack() as idle:
        before = descriptors()
        for _ in range(300):
            silent = idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            silent.sendall(b"GET /metrics HT")
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                assert b'unblur_captured_total{camera="door"} 7.0' in answer.read()
        ours = descriptors() - before - 300  # the other ends are in this process too
        assert ours <= 20
        assert threading.active_count() == threads + 1


def test_a_request_that_never_ends_is_closed() -> None:
    with (
        serve_metrics({}, "127.0.0.1", 0) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionResetError):
            assert slow.recv(100) == b""


@pytest.mark.parametrize("request_line", [b"GET /secret HTTP/1.1", b"POST /metrics HTTP/1.1", b"\xff\x00", b""])
def test_other_requests_get_nothing(request_line: bytes) -> None:
    with (
        serve_metrics({}, "127.0.0.1", 0) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as client,
    ):
        client.sendall(request_line + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 404 ")
