"""The steps of a recursion: what is one tensor at different steps, how its ranges are shared and how they drift.

LPRN calls one network T times with the same weights, and the exporter unrolls it. What one weight reads in step 1,
in step 2 and so on is a group; a graph without recursion has groups of one tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import get_args

from onnx import ModelProto

from unblur.calibration.observed import Observed, Range
from unblur.calibration.ranges import choose_range, is_zero
from unblur.runtime.calibration_table import Method, StepPolicy


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


def step_groups(model: ModelProto, tensors: Sequence[str]) -> tuple[StepGroup, ...]:
    """`tensors` by the weight that reads them, in graph order; the first weight that reads a tensor has it.

    A tensor that no constant weight reads is a group of its own, under its own name.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted, groups = dict.fromkeys(tensors), dict[str, list[str]]()
    for node in model.graph.node:
        weights = [name for name in node.input[1:2] if name in constants]
        if weights and node.input[0] in wanted:
            del wanted[node.input[0]]
            groups.setdefault(weights[0], []).append(node.input[0])
    alone = {name: [name] for name in wanted}
    return tuple(StepGroup(weight, tuple(members)) for weight, members in {**groups, **alone}.items())


def ranges_for_steps(
    model: ModelProto,
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


def step_drift(model: ModelProto, ranges: Mapping[str, Range]) -> tuple[Drift, ...]:
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
