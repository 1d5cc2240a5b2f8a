"""What was seen of a tensor -> the range that symmetric INT8 represents; what lies outside is clipped.

A range is [-t, t] in steps of t / 127. A wide one clips nothing and rounds coarsely, a narrow one rounds finely and
clips; the methods differ in where they see the balance. All but min-max read the histogram of magnitudes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from unblur.calibration.observation import BINS, Histogram, Observed, Range
from unblur.calibration.onnx_model import OnnxModel
from unblur.runtime.errors import CalibrationError
from unblur.runtime.model.calibration_table import INT8_LEVELS, Method, StepPolicy

_ENTROPY_LEVELS = 128  # of |value|: 0 .. 127
_MSE_STRIDE = 16  # bins between thresholds on the first, coarse search
_TINIEST = float(np.finfo(np.float32).tiny) * INT8_LEVELS  # a smaller scale is not a normal float32
_DEAD = Range(-1.0, 1.0)

Values = NDArray[np.float64]


def choose_range(observed: Observed, method: Method, percentile: float = 99.99) -> Range:
    """The symmetric range of a tensor, never wider than what was seen.

    minmax: the largest magnitude. percentile: that many percent of the values, exact zeros included, are inside.
    entropy: see `entropy_threshold`. mse: see `mse_threshold`. A tensor that was zero everywhere gets [-1, 1],
    since any scale holds a zero.
    Raises ValueError if the method or the percentile is none, CalibrationError if a histogram is needed and was not
    observed.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is one of {', '.join(get_args(Method))}, got '{method}'")
    if is_zero(observed.range):
        return _DEAD
    magnitude = observed.range.magnitude
    if method == "minmax":
        return Range(-magnitude, magnitude)
    if observed.histogram is None:
        raise CalibrationError(f"method '{method}' needs histograms, and only ranges were observed; observe those")
    threshold = min(_threshold(observed.histogram, method, percentile), magnitude)
    return Range(-threshold, threshold)


def is_zero(seen: Range) -> bool:
    """True if a tensor was zero, or so small that no float32 scale holds it."""
    return seen.magnitude < _TINIEST


def _threshold(histogram: Histogram, method: Method, percentile: float) -> float:
    if method == "percentile":
        return percentile_threshold(histogram, percentile)
    return entropy_threshold(histogram) if method == "entropy" else mse_threshold(histogram)


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """The upper edge of the bin that holds the given percentile, in (0, 100], of the magnitudes."""
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile is in (0, 100], got {percentile}")
    inside = np.cumsum(histogram.counts)
    bin_index = int(np.searchsorted(inside, histogram.total * percentile / 100))
    return float(histogram.edges[min(bin_index, BINS - 1) + 1])


def entropy_threshold(histogram: Histogram) -> float:
    """The edge at which the distribution, clipped there and put on 128 levels, diverges least from the original.

    The divergence is Kullback and Leibler's, the search TensorRT's (Migacz, "8-bit inference with TensorRT", GTC
    2017) in the form of NVIDIA's pytorch-quantization: every edge from the 128th on is tried; what is clipped
    counts to the last bin of the reference; a level spreads its counts evenly over its bins that are not empty; of
    equal divergences the widest wins. As there, the first bin takes the count of its neighbour: behind a ReLU it
    holds half of all values, which INT8 represents exactly and which would hide what the others lose. ONNX Runtime
    keeps them, and with its default of 128 bins has a single edge to choose from.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    if used <= _ENTROPY_LEVELS:
        return float(histogram.edges[max(used, 1)])
    candidates = np.arange(_ENTROPY_LEVELS, used + 1)
    divergences = _divergences(counts, candidates)
    best = divergences.size - 1 - int(np.argmin(divergences[::-1]))
    return float(histogram.edges[candidates[best]])


def _divergences(counts: Values, candidates: NDArray[np.int64]) -> Values:
    """Kullback-Leibler divergence for every number of bins kept.

    c are the counts kept, C is their sum, O what is clipped, T = C + O; S and N are the counts of a level and its
    bins in use. The reference is p = c / T, with O added to the last c, the quantised one q = S / (N C). The sum of
    p log(p / q) needs sums over levels only, and those are differences of running sums for all candidates at once.
    """
    kept, in_use, entropies = (_running(values) for values in (counts, counts > 0, _x_log_x(counts)))
    total = kept[-1]
    edges = -(-np.arange(_ENTROPY_LEVELS + 1) * candidates[:, None] // _ENTROPY_LEVELS)  # first bin of each level
    level_counts, level_bins = np.diff(kept[edges]), np.diff(in_use[edges])
    level_logs = np.log(np.divide(level_counts, level_bins, out=np.ones_like(level_counts), where=level_bins > 0))
    last, clipped = counts[candidates - 1], total - kept[candidates]
    own = entropies[candidates] - _x_log_x(last) + _x_log_x(last + clipped)
    cross = (level_counts * level_logs).sum(1) + clipped * level_logs[:, -1]
    divergences = (own - cross) / total - np.log(total) + np.log(np.maximum(kept[candidates], 1))
    return np.where((last == 0) & (clipped > 0), np.inf, divergences)  # q has nothing where p has the clipped


def mse_threshold(histogram: Histogram) -> float:
    """The edge with the least mean square error of rounding and clipping together, to a bin.

    Values are taken as spread evenly inside a bin, so that rounding is judged rightly even where a step is finer
    than a bin. The first bin is left out: it holds the exact zeros of a ReLU, which have no error and cannot be
    told from the small values there, whose error hardly depends on the threshold.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0
    if not counts.any():
        return float(histogram.edges[1])
    used = int(np.flatnonzero(counts)[-1]) + 1
    coarse = np.unique(np.append(np.arange(_MSE_STRIDE, used, _MSE_STRIDE), used))
    near = coarse[int(np.argmin(_square_errors(counts[:used], coarse)))]
    fine = np.arange(max(near - _MSE_STRIDE, 1), min(near + _MSE_STRIDE, used) + 1)
    return float(histogram.edges[fine[int(np.argmin(_square_errors(counts[:used], fine)))]])


def _square_errors(counts: Values, thresholds: NDArray[np.int64]) -> Values:
    """Sum of the squared errors for every threshold, in bins.

    The integral of the squared error from 0 to x, with n the level next to x, s the step and r = x - n s, is
    n s^3 / 12 + r^3 / 3; beyond the last level n stays, and r is what clipping cuts off.
    """
    edges = np.arange(counts.size + 1, dtype=np.float64)
    steps = thresholds[:, None] / INT8_LEVELS
    levels = np.minimum(np.rint(edges / steps), INT8_LEVELS)
    rest = edges - levels * steps
    integrals = levels * steps**3 / 12 + rest**3 / 3
    errors: Values = np.diff(integrals) @ counts
    return errors


def _running(values: NDArray[np.float64] | NDArray[np.bool_]) -> Values:
    """Sums of the first 0, 1, .. n values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(values: Values) -> Values:
    return np.asarray(values * np.log(np.where(values > 0, values, 1.0)))


@dataclass(frozen=True)
class StepGroup:
    """tensors: what the convolutions with one weight read, first step first."""

    weight: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """How the range of a group moves from step to step. magnitudes: largest |value| inside the range at each step.
    ratios: the same, as multiples of the first step's.
    """

    weight: str
    tensors: tuple[str, ...]
    magnitudes: tuple[float, ...]
    ratios: tuple[float, ...]


def step_groups(model: OnnxModel, tensors: Sequence[str]) -> tuple[StepGroup, ...]:
    """`tensors` by the weight that reads them, in graph order; the first weight that reads a tensor has it.

    A tensor that no constant weight reads is a group of its own, under its own name.
    """
    constants = model.view.initializers
    wanted, groups = dict.fromkeys(tensors), dict[str, list[str]]()
    for node in model.graph.node:
        weights = [name for name in node.input[1:2] if name in constants]
        if weights and node.input[0] in wanted:
            del wanted[node.input[0]]
            groups.setdefault(weights[0], []).append(node.input[0])
    alone = {name: [name] for name in wanted}
    return tuple(StepGroup(weight, tuple(members)) for weight, members in {**groups, **alone}.items())


def ranges_for_steps(
    model: OnnxModel,
    observed: Mapping[str, Observed],
    method: Method,
    policy: StepPolicy = "per-step",
    percentile: float = 99.99,
) -> dict[str, Range]:
    """The symmetric range of every observed tensor.

    policy: per-step, each has its own. shared: the method looks at the values of all steps together. clamped: each
    gets the largest of its group, so that no step clips more than it would alone.
    Raises as `choose_range`, ValueError for an unknown policy.
    """
    if policy not in get_args(StepPolicy):
        raise ValueError(f"a step policy is one of {', '.join(get_args(StepPolicy))}, got '{policy}'")
    if policy == "per-step":
        return {name: choose_range(seen, method, percentile) for name, seen in observed.items()}
    chosen: dict[str, Range] = {}
    for group in step_groups(model, list(observed)):
        members = [observed[name] for name in group.tensors]
        if policy == "shared":
            members = [reduce(Observed.merged, members)]
        alive = [seen for seen in members if not is_zero(seen.range)] or members
        common = reduce(Range.union, (choose_range(seen, method, percentile) for seen in alive))
        chosen.update(dict.fromkeys(group.tensors, common))
    return {name: chosen[name] for name in observed}


def step_drift(model: OnnxModel, ranges: Mapping[str, Range]) -> tuple[Drift, ...]:
    """How the ranges of each group with more than one step move; give ranges of the policy "per-step".

    Ratios are 0 where the first step's range is empty.
    """
    return tuple(
        _drift(group, [ranges[name].magnitude for name in group.tensors])
        for group in step_groups(model, list(ranges))
        if len(group.tensors) > 1
    )


def _drift(group: StepGroup, magnitudes: list[float]) -> Drift:
    first = magnitudes[0]
    ratios = tuple(magnitude / first if first else 0.0 for magnitude in magnitudes)
    return Drift(group.weight, group.tensors, tuple(magnitudes), ratios)
