import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from unblur.calibration.observation import BINS, Histogram

Values = NDArray[np.float32]
FINITE = st.floats(-(2.0**60), 2.0**60, width=32)
PARTS = st.lists(hnp.arrays(np.float32, st.integers(0, 40), elements=FINITE), min_size=1, max_size=5)


def _histogram(*parts: Values) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def _at_once(parts: list[Values], top: float) -> NDArray[np.int64]:
    """numpy's histogram of all values, with the final edges; in float64, where scaling is exact."""
    magnitudes = np.abs(np.concatenate(parts)).astype(np.float64)
    return np.histogram(magnitudes, BINS, (0, top or 1.0))[0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PARTS)
def test_merging_bins_gives_what_a_second_pass_would(parts: list[Values]) -> None:
    histogram = _histogram(*parts)
    assert np.array_equal(histogram.counts, _at_once(parts, histogram.top))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PARTS, st.floats(0, 1))
def test_a_quantile_is_at_most_a_1024th_of_the_peak_away(parts: list[Values], share: float) -> None:
    """The error that widening brings: numpy's 2048 bins up to the known peak have half of it."""
    magnitudes = np.abs(np.concatenate(parts)).astype(np.float64)
    if magnitudes.size == 0 or magnitudes.max() <= 2.0**-100:
        return
    histogram = _histogram(*parts)
    exact = float(np.quantile(magnitudes, share, method="inverted_cdf"))
    index = int(np.searchsorted(np.cumsum(histogram.counts), max(np.ceil(share * magnitudes.size - 1e-9), 1)))
    lower, upper = histogram.edges[index : index + 2]
    assert lower <= exact < upper
    assert upper - lower <= magnitudes.max() / 1024


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PARTS, PARTS)
def test_two_histograms_merge_to_that_of_all_values(first: list[Values], second: list[Values]) -> None:
    merged = _histogram(*first).merged(_histogram(*second))
    together = _histogram(*second, *first)
    assert merged.top == together.top
    assert np.array_equal(merged.counts, together.counts)


def test_many_values_are_counted_in_chunks() -> None:
    values = np.random.default_rng(0).normal(0, 3, (1, 7, 101, 211)).astype(np.float32)
    histogram = _histogram(values)
    assert histogram.top == 16.0  # the largest is between 8 and 16
    assert np.array_equal(histogram.counts, _at_once([values.ravel()], 16.0))
    assert histogram.total == values.size


@pytest.mark.parametrize("order", [(0.0, 3.0), (3.0, 0.0), (1e-38, 0.0, 3.0), (3.0, 2.0**100, 3.0)])
def test_zeros_and_far_outliers_lose_nothing(order: tuple[float, ...]) -> None:
    histogram = _histogram(*(np.full(5, value, np.float32) for value in order))
    assert histogram.total == 5 * len(order)
    assert np.array_equal(histogram.counts, _at_once([np.repeat(np.float32(order), 5)], histogram.top))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite values only"):
        Histogram().add(np.array([1, bad], np.float32))
