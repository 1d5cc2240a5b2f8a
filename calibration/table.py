"""Which calibration table belongs to which ONNX model."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import Placement, place_as
from unblur.runtime.model.calibration_table import (
    CalibrationTable,
    Measured,
    Origin,
    Preprocessing,
    StepPolicy,
    TensorRange,
    fields_of,
    mismatch_error,
    preprocessing_of,
)


def table_of(
    model: OnnxModel,
    placement: Placement,
    ranges: Mapping[str, TensorRange],
    *,
    method: Origin,
    images: Mapping[str, str],
    preprocessing: Preprocessing | None = None,
    percentile: float | None = None,
    step_policy: StepPolicy = "per-step",
    measured: Measured | None = None,
) -> CalibrationTable:
    """The table of a placement in `model`, bound to it; the fields are those of CalibrationTable.

    ranges: of the activations that the placed layers read; any others are what implicit INT8 needs beside.
    preprocessing: default what the model's spec says.
    """
    spec = model.spec
    return CalibrationTable(
        method=method,
        percentile=percentile,
        step_policy=step_policy,
        preset=spec.preset,
        steps=spec.steps,
        model_sha256=model.sha256,
        preprocessing=preprocessing or preprocessing_of(spec),
        images=images,
        ranges={name: ranges[name] for name in placement.activations if name in ranges},
        implicit={name: seen for name, seen in ranges.items() if name not in placement.activations},
        kept=placement.kept,
        excluded=placement.excluded,
        reads=placement.reads,
        image_tensors=tuple(sorted(placement.images)),
        measured=measured,
    )


def check_fits(table: CalibrationTable, model: OnnxModel, *, where: str = "the calibration table") -> None:
    """CalibrationError with the field and both values if `table` was not made for `model`, an fp32 graph."""
    spec = model.spec
    table.check_spec(spec, where=where)
    if table.model_sha256 != model.sha256:
        fix = "calibrate this model, or `unblur table bind` the table if the weights were tuned with it"
        raise mismatch_error(where, spec, "model_sha256", table.model_sha256, model.sha256, fix)


def bound_to(
    table: CalibrationTable, model: OnnxModel, *, where: str = "the calibration table"
) -> CalibrationTable:
    """`table` for other weights of the same network: those that were fine-tuned against these very ranges.

    Raises CalibrationError if it is another network, by its spec or by the names of its tensors.
    """
    spec = model.spec
    table.check_spec(spec, where=where)
    names = model.view.tensors.union(model.view.initializers)
    for name in (*table.ranges, *table.implicit, *table.reads):
        if name not in names:
            raise mismatch_error(where, spec, f"tensor '{name}'", "in the table", "not in the graph")
    return replace(table, model_sha256=model.sha256)


def at_fewer_steps(
    table: CalibrationTable, model: OnnxModel, *, where: str = "the calibration table"
) -> CalibrationTable:
    """`table` for the same weights at fewer steps of the recursion: the same layers in INT8, with the same ranges.

    What a weight reads the n-th time is one tensor in both graphs, whatever it is called there: the steps of the
    shorter recursion are the first ones of the longer. Implicit INT8 gets no ranges. Raises CalibrationError if it
    is another network, by its spec or because a weight is used more often than the table knows.
    """
    spec = model.spec
    table.check_spec(replace(spec, steps=table.steps), where=where)
    placement = place_as(model, table.kept, table.excluded)
    ranges: dict[str, TensorRange] = {}
    for weight, tensors in placement.reads.items():
        known = table.reads.get(weight, ())
        if len(tensors) > len(known):
            raise mismatch_error(where, spec, f"number of tensors that '{weight}' reads", len(known), len(tensors))
        ranges.update((tensor, table.ranges[name]) for tensor, name in zip(tensors, known, strict=False))
    ranges |= {join.tensor: table.ranges[join.tensor] for join in placement.joins if join.tensor in table.ranges}
    return replace(
        table,
        steps=spec.steps,
        model_sha256=model.sha256,
        ranges=ranges,
        implicit={},
        reads=placement.reads,
        image_tensors=tuple(sorted(placement.images)),
        measured=None,
    )


_RANGES = ("ranges", "implicit")
_SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


@dataclass(frozen=True)
class TableDiff:
    """settings: field -> both values, e.g. "preprocessing.blurred". only_in_first, only_in_second: tensors.
    moved: tensor -> amax in both, where it moved by more than was allowed.
    """

    settings: Mapping[str, tuple[object, object]]
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]
    moved: Mapping[str, tuple[float, float]]

    def __bool__(self) -> bool:
        """True if there is any difference."""
        return bool(self.settings or self.only_in_first or self.only_in_second or self.moved)

    def lines(self) -> Iterator[str]:
        """One line a difference, as people read it."""
        for field, (first, second) in self.settings.items():
            yield f"{field}: {_shown(first)} -> {_shown(second)}"
        yield from (f"tensor {name}: only in the first" for name in self.only_in_first)
        yield from (f"tensor {name}: only in the second" for name in self.only_in_second)
        for name, (first_amax, second_amax) in self.moved.items():
            change = 100 * (second_amax / first_amax - 1)
            yield f"tensor {name}: amax {first_amax:.6g} -> {second_amax:.6g} ({change:+.1f} %)"


def diff(first: CalibrationTable, second: CalibrationTable, *, percent: float = 5.0) -> TableDiff:
    """percent: a range that moved by no more, relative to the first, counts as equal."""
    before, after = _tensors(first), _tensors(second)
    return TableDiff(
        settings=_differing(_settings(first), _settings(second)),
        only_in_first=tuple(name for name in before if name not in after),
        only_in_second=tuple(name for name in after if name not in before),
        moved={
            name: (value.amax, after[name].amax)
            for name, value in before.items()
            if name in after and abs(after[name].amax - value.amax) > percent / 100 * value.amax
        },
    )


def _tensors(table: CalibrationTable) -> dict[str, TensorRange]:
    return {**table.ranges, **table.implicit}


def _settings(table: CalibrationTable) -> dict[str, object]:
    """Every field but the ranges, nested ones by their path."""
    return dict(_flat({name: value for name, value in fields_of(table).items() if name not in _RANGES}))


def _flat(fields: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _differing(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    names = dict.fromkeys((*first, *second))
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return _SHA256.sub(r"\1...", str(value))
