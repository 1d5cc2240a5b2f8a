"""A histogram of magnitudes that widens as larger values come, without seeing the earlier ones again."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""As many as TensorRT's entropy calibration takes."""

_SMALLEST_TOP = 2.0**-100  # keeps BINS / top inside float32; what is smaller is zero to any network
_CHUNK = 2**15  # values binned at a time: their indices stay in the processor's cache

Counts = NDArray[np.int64]


def _no_counts() -> Counts:
    return np.zeros(BINS, np.int64)


@dataclass(eq=False)
class Histogram:
    """How often |value| fell into each of `BINS` equal bins of [0, top); top is 0 while every value was zero.

    top is a power of two and doubles when a larger value comes: the bins are merged in pairs, the upper half is
    empty. Edges are exact in float32, so the result is the histogram that a second pass over all values with the
    final edges would give, in whatever order they came; two histograms merge as exactly. The price is resolution:
    only half to all of the bins are in use, so a bin is at most 1/1024 of the largest magnitude wide, where a
    histogram made knowing that magnitude has 1/2048.
    """

    counts: Counts = field(default_factory=_no_counts)
    top: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count float32 values of any shape; ValueError if one is not finite. Allocates little."""
        if values.size == 0:
            return
        peak = float(max(values.max(), -values.min()))
        if not math.isfinite(peak):
            raise ValueError("a histogram holds finite values only")
        self._widen_for(peak)
        _count(np.ascontiguousarray(values).reshape(-1), self.top, self.counts)

    def merged(self, other: "Histogram") -> "Histogram":
        """The histogram of the values of both."""
        top = max(self.top, other.top)
        return Histogram(self._counts_up_to(top) + other._counts_up_to(top), top)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """The `BINS` + 1 edges of the bins."""
        return np.asarray(np.arange(BINS + 1) * (self.top / BINS))

    def _widen_for(self, peak: float) -> None:
        if peak > 0 and peak >= self.top:
            top = max(2.0 ** math.frexp(peak)[1], _SMALLEST_TOP)
            self.counts, self.top = self._counts_up_to(top), top

    def _counts_up_to(self, top: float) -> Counts:
        """The counts in the bins of [0, top), a larger power of two; zeros are in the first bin at any width."""
        counts = self.counts.copy()
        doublings = round(math.log2(top / self.top)) if self.top else 0
        for _ in range(min(doublings, BINS.bit_length())):
            counts = np.concatenate([counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
        return counts


def _count(values: NDArray[np.float32], top: float, counts: Counts) -> None:
    """Add to `counts`. Scaling by a power of two is exact, so a value never slips over an edge."""
    scale = np.float32(BINS / top) if top else np.float32(0)
    scaled, index = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.intp)
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        np.abs(np.multiply(part, scale, out=scaled[: part.size]), out=scaled[: part.size])
        np.copyto(index[: part.size], scaled[: part.size], casting="unsafe")  # towards zero
        counts += np.bincount(index[: part.size], minlength=BINS)
