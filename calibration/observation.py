"""What was seen of a tensor: the range of its values and, if asked for, how they are spread."""

import hashlib
import json
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unblur.calibration.onnx_model import OnnxModel
from unblur.runtime.errors import CalibrationError
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Batch
from unblur.runtime.strict_json import parse_json

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


SCHEMA = 1


@dataclass
class ObservationState:
    """What was seen so far, and of what.

    model: sha256 of the ONNX file. pictures: how many were seen. digest: a sha256 over them, as the network took
    them and in their order, so that another crop, blur, order or picture is noticed.
    """

    model: str
    tensors: tuple[str, ...]
    histograms: bool
    pictures: int = 0
    digest: str = ""
    observed: dict[str, Observed] = field(default_factory=dict)

    @classmethod
    def start(cls, model: OnnxModel, tensors: Sequence[str], *, histograms: bool) -> "ObservationState":
        return cls(model.sha256, tuple(tensors), histograms)

    def note(self, batch: Batch) -> None:
        """Count a picture that was seen; float32 (N, 3, H, W)."""
        link = hashlib.sha256(f"{self.digest} {batch.shape}".encode())
        link.update(np.ascontiguousarray(batch).data)
        self.pictures, self.digest = self.pictures + 1, link.hexdigest()

    def resumed(self, path: Path, batches: Iterable[Batch]) -> "ObservationState":
        """The state in the file, after checking that it goes with this run, which has seen nothing yet.

        batches: the pictures from the first on; as many are taken as the state has seen.
        Raises CalibrationError, naming the field, if the state is of another run, or if the file is damaged.
        """
        saved = _read(path)
        for name in ("model", "tensors", "histograms"):
            _check(path, name, getattr(saved, name), getattr(self, name))
        for batch in islice(batches, saved.pictures):
            self.note(batch)
        _check(path, "pictures", saved.digest, self.digest)
        return saved

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        facts = {name: getattr(self, name) for name in ("model", "tensors", "histograms", "pictures", "digest")}
        seen = [self.observed[name] for name in self.tensors]
        histograms = [one.histogram for one in seen if one.histogram is not None]
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                facts=np.array(json.dumps({"schema": SCHEMA, **facts})),
                ranges=np.array([(one.range.lowest, one.range.highest) for one in seen]),
                counts=np.array([histogram.counts for histogram in histograms]),
                tops=np.array([histogram.top for histogram in histograms]),
            )


def _read(path: Path) -> ObservationState:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            facts = parse_json(str(arrays["facts"]))
            _check(path, "schema", facts.pop("schema"), SCHEMA)
            state = ObservationState(**{**facts, "tensors": tuple(facts["tensors"])})
            state.observed = dict(zip(state.tensors, _observed(arrays, state.histograms), strict=True))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path} is damaged or no saved observation; delete it to start again") from error
    return state


def _observed(arrays: "np.lib.npyio.NpzFile", histograms: bool) -> list[Observed]:
    ranges = [Range(*map(float, pair)) for pair in arrays["ranges"]]
    if not histograms:
        return [Observed(seen) for seen in ranges]
    return [
        Observed(seen, Histogram(counts, float(top)))
        for seen, counts, top in zip(ranges, arrays["counts"], arrays["tops"], strict=True)
    ]


def _check(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise CalibrationError(
            f"{path} was saved by another observation: its '{name}' is {_short(found)}, "
            f"expected {_short(expected)}; delete it to start again"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:16]}..."
