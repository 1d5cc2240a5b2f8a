from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from unblur.calibration.observation import BINS, Histogram, Observed, Range
from unblur.calibration.ranges import choose_range
from unblur.runtime.errors import CalibrationError
from unblur.runtime.model.calibration_table import Method

Values = NDArray[np.float32]
SPREADS: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "normal": lambda rng: rng.normal(0, 1, 50_000),
    "laplace": lambda rng: rng.laplace(0, 1, 50_000),
    "relu": lambda rng: np.maximum(rng.normal(-0.5, 2, 50_000), 0),
    "mostly zero": lambda rng: np.maximum(rng.laplace(-3, 1, 50_000), 0),
    "outlier": lambda rng: np.append(rng.normal(0, 1, 50_000), 40.0),
    "uniform": lambda rng: rng.random(50_000),
}
SMALL = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32))


def _values(spread: str) -> Values:
    return SPREADS[spread](np.random.default_rng(7)).astype(np.float32)


def _observed(values: Values) -> Observed:
    histogram = Histogram()
    histogram.add(values)
    return Observed(Range.of(values), histogram)


def _threshold(values: Values, method: Method, percentile: float = 99.99) -> float:
    return choose_range(_observed(values), method, percentile).magnitude


def _bin_width(values: Values) -> float:
    return float(np.abs(values).max()) / 1024


def _mse(values: Values, threshold: float) -> float:
    step = threshold / 127
    exact = values.astype(np.float64)
    return float(np.mean((np.clip(np.rint(exact / step), -127, 127) * step - exact) ** 2))


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """Kullback-Leibler as pytorch-quantization writes it, bin by bin, on 128 levels; both sums are made 1."""
    level_of = np.searchsorted(np.arange(129) * kept / 128, np.arange(kept), "right") - 1
    reference, quantised = counts[:kept].copy(), np.zeros(kept)
    reference[-1] += counts[kept:].sum()
    for level in range(128):
        members = (level_of == level) & (counts[:kept] > 0)
        quantised[members] = counts[:kept][members].sum() / max(members.sum(), 1)
    p, q = reference / reference.sum(), quantised / max(quantised.sum(), 1e-300)
    if np.any((p > 0) & (q == 0)):
        return float("inf")
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


@given(SMALL)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_minmax_is_the_largest_magnitude(values: Values) -> None:
    largest = float(np.abs(values).max())
    chosen = choose_range(_observed(values), "minmax")
    has_scale = largest / 127 >= np.finfo(np.float32).tiny
    assert chosen == (Range(-largest, largest) if has_scale else Range(-1.0, 1.0))


@given(SMALL, st.floats(0.5, 100))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_percentile_is_the_exact_quantile_to_a_bin(values: Values, percentile: float) -> None:
    magnitudes = np.abs(values).astype(np.float64)
    if magnitudes.max() < 1e-30:
        return
    rank = max(int(np.ceil(values.size * percentile / 100)), 1)
    exact = float(np.sort(magnitudes)[rank - 1])
    threshold = _threshold(values, "percentile", percentile)
    assert exact <= threshold <= exact + _bin_width(values)
    assert threshold <= magnitudes.max()


@pytest.mark.parametrize("spread", SPREADS)
def test_entropy_is_the_brute_force_minimum(spread: str) -> None:
    """A subset of the edges is enough for the reference, every one of them takes seconds: ours is no worse."""
    values = _values(spread)
    observed = _observed(values)
    assert observed.histogram is not None
    counts = observed.histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1
    kept = min(round(_threshold(values, "entropy") / observed.histogram.top * BINS + 0.499), used)
    ours = _divergence(counts, kept)
    assert all(ours <= _divergence(counts, other) * (1 + 1e-9) for other in (*range(128, used, 61), used))


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_entropy_of_sparse_histograms_is_the_brute_force_minimum(seed: int, values_per_bin: int) -> None:
    """Few values leave bins empty, the case in which levels and the last bin need care."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(BINS, np.int64)
    np.add.at(counts, rng.integers(0, 190, 40), values_per_bin)
    counts[rng.integers(128, 190)] += 1
    histogram = Histogram(counts, top=float(BINS))  # a bin is 1 wide, so a threshold is a number of bins
    expected = counts.astype(np.float64)
    expected[0] = expected[1]
    used = int(np.flatnonzero(expected)[-1]) + 1
    divergences = [_divergence(expected, kept) for kept in range(128, used + 1)]
    chosen = choose_range(Observed(Range(0, BINS), histogram), "entropy").magnitude
    assert divergences[int(chosen) - 128] == pytest.approx(min(divergences), abs=1e-9)


@pytest.mark.parametrize("spread", SPREADS)
def test_mse_is_within_a_percent_of_the_best_threshold(spread: str) -> None:
    values = _values(spread)
    largest = float(np.abs(values).max())
    best = min(_mse(values, largest * share) for share in np.linspace(0.02, 1, 400))
    assert _mse(values, _threshold(values, "mse")) <= best * 1.01


@given(hnp.arrays(np.float32, st.integers(200, 400), elements=st.floats(-1, 1, width=32)), st.floats(1, 30))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_mse_of_few_values_is_no_worse_than_minmax(values: Values, outlier: float) -> None:
    """With few values the grid of one threshold may happen to hit them; evenly spread bins cannot know that."""
    values = np.append(values, np.float32(outlier))
    rounding = (outlier / 127) ** 2 / 12
    assert _mse(values, _threshold(values, "mse")) <= _mse(values, outlier) + rounding


def test_zeros_behind_a_relu_do_not_move_entropy_and_mse() -> None:
    positive = _values("relu")[_values("relu") > 0]
    with_zeros = np.concatenate([positive, np.zeros(20 * positive.size, np.float32)])
    assert _threshold(with_zeros, "entropy") == _threshold(positive, "entropy")
    assert _threshold(with_zeros, "mse") == _threshold(positive, "mse")


@pytest.mark.parametrize("spread", SPREADS)
def test_percentile_agrees_with_onnx_runtime_to_a_bin(spread: str) -> None:
    """ONNX Runtime gives the lower edge of the bin of the quantile, of bins that are cut otherwise."""
    values = _values(spread)
    collector = HistogramCollector("percentile", True, BINS, 128, 99.9, "same")
    collector.collect({"x": [values]})
    theirs = float(collector.compute_collection_result()["x"][1])
    assert _threshold(values, "percentile", 99.9) == pytest.approx(theirs, abs=2 * _bin_width(values))


@pytest.mark.parametrize("spread", ["normal", "laplace", "mostly zero"])
def test_entropy_is_near_that_of_onnx_runtime_or_better(spread: str) -> None:
    """ONNX Runtime puts both signs on 256 levels, rounds what a level spreads to whole numbers, smooths empty bins
    and keeps the zeros. Without many of them it comes within a fifth of our threshold, with them far too low.
    """
    values = _values(spread)
    collector = HistogramCollector("entropy", True, BINS, 256, 99.9, "same")
    collector.collect({"x": values})
    theirs = float(collector.compute_collection_result()["x"][1])
    if spread == "mostly zero":
        assert _mse(values, _threshold(values, "entropy")) < _mse(values, theirs) / 10
    else:
        assert _threshold(values, "entropy") == pytest.approx(theirs, rel=0.2)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
@pytest.mark.parametrize("spread", SPREADS)
def test_no_threshold_is_wider_than_what_was_seen(spread: str, method: Method) -> None:
    values = _values(spread)
    assert 0 < _threshold(values, method) <= np.abs(values).max()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_a_tensor_that_is_always_zero_gets_a_scale(method: Method) -> None:
    assert choose_range(_observed(np.zeros(9, np.float32)), method) == Range(-1.0, 1.0)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_a_constant_tensor_keeps_its_value(method: Method) -> None:
    assert _threshold(np.full(9, -0.37, np.float32), method) == pytest.approx(0.37, rel=1 / 1024)


def test_histograms_are_needed_for_all_but_minmax() -> None:
    seen = Observed(Range(-1, 2))
    assert choose_range(seen, "minmax") == Range(-2, 2)
    with pytest.raises(CalibrationError, match="method 'mse' needs histograms, and only ranges were observed"):
        choose_range(seen, "mse")


def test_wrong_arguments_are_named() -> None:
    observed = _observed(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="method is one of minmax, percentile, entropy, mse, got 'best'"):
        choose_range(observed, "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"percentile is in \(0, 100\], got 0"):
        choose_range(observed, "percentile", 0)
