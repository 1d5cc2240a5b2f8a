"""Percentiles from buckets are those of the durations themselves, within half a percent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unblur.runtime.loops.stats import LatencyHistogram, LoopStats

durations_ms = st.lists(st.floats(0.02, 1e6), min_size=1, max_size=200)


@given(durations_ms, st.sampled_from([1, 50, 90, 99, 100]))
@settings(max_examples=60, deadline=None)
def test_a_percentile_is_within_half_a_percent(values: list[float], percent: int) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert histogram.percentile_ms(percent) == pytest.approx(expected, rel=0.0051)


def test_statistics_and_the_recent_ones() -> None:
    histogram = LatencyHistogram()
    for _ in range(1000):
        histogram.add(100.0)
    for _ in range(128):
        histogram.add(10.0)
    statistics = histogram.statistics()
    assert statistics["p50"] == pytest.approx(100, rel=0.006)
    assert statistics["mean"] == pytest.approx((1000 * 100 + 128 * 10) / 1128)
    assert statistics["max"] == 100
    assert histogram.recent() == {"p50": 10, "p99": 10}


def test_nothing_counted() -> None:
    assert LatencyHistogram().statistics() == {}
    assert LatencyHistogram().recent() == {}
    with pytest.raises(ValueError, match="no duration was counted"):
        LatencyHistogram().percentile_ms(50)


def test_zero_and_very_long_durations_are_counted() -> None:
    histogram = LatencyHistogram()
    histogram.add(0.0)
    histogram.add(1e12)
    assert histogram.count == 2
    assert histogram.percentile_ms(50) == pytest.approx(0.01, rel=0.01)


def test_every_number_is_a_counter() -> None:
    stats = LoopStats()
    numbers = {name for name, value in vars(stats).items() if isinstance(value, int)}
    assert set(stats.counters) == numbers
