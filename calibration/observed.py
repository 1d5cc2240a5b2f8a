"""What was seen of a tensor: the range of its values and, if asked for, how they are spread."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unblur.calibration.histogram import Histogram


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value a tensor took."""

    lowest: float
    highest: float

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Range":
        """NaN on both sides if one of the values is NaN."""
        return cls(float(values.min()), float(values.max()))

    def union(self, other: "Range") -> "Range":
        """The range that holds both."""
        return Range(min(self.lowest, other.lowest), max(self.highest, other.highest))

    @property
    def finite(self) -> bool:
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    @property
    def magnitude(self) -> float:
        """The largest |value|: what symmetric INT8 maps to 127."""
        return max(-self.lowest, self.highest, 0.0)


@dataclass(frozen=True, eq=False)
class Observed:
    """histogram: of the magnitudes; None if only ranges were asked for."""

    range: Range
    histogram: Histogram | None = None

    def merged(self, other: "Observed") -> "Observed":
        """What would have been seen of both tensors as one."""
        histogram = None
        if self.histogram is not None and other.histogram is not None:
            histogram = self.histogram.merged(other.histogram)
        return replace(self, range=self.range.union(other.range), histogram=histogram)
