"""A scrape over HTTP tells what the loop counted."""

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.prometheus import serve_metrics
from unblur.runtime.loops.stats import LoopStats


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def test_counters_steps_and_stages() -> None:
    stats = LoopStats(captured=10, dropped=3, reconnects=1)
    stats.steps.update({1: 4, 6: 2})
    for ms in (4.0, 40.0, 400.0):
        stats.restore.add(ms)
    with serve_metrics(stats, "127.0.0.1", 0) as port:
        samples = scrape(port)
        stats.captured = 11
        assert scrape(port)["unblur_captured_total", ()] == 11
    assert samples["unblur_captured_total", ()] == 10
    assert samples["unblur_dropped_total", ()] == 3
    assert samples["unblur_steps_total", (("steps", "6"),)] == 2
    stage = ("stage", "restore")
    assert samples["unblur_stage_seconds_bucket", (("le", "0.05"), stage)] == 2
    assert samples["unblur_stage_seconds_bucket", (("le", "+Inf"), stage)] == 3
    assert samples["unblur_stage_seconds_sum", (stage,)] == pytest.approx(0.444)


def test_a_port_that_is_taken_is_one_line_and_a_left_one_is_free_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(BadInput, match=f"cannot serve metrics at 127.0.0.1:{port}: .+; choose another"),
            serve_metrics(LoopStats(), "127.0.0.1", port),
        ):
            pass
    with serve_metrics(LoopStats(), "127.0.0.1", port):
        pass
