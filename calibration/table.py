"""Which calibration table belongs to which ONNX model."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto

from unblur.calibration.onnx_file import onnx_bytes, spec_of
from unblur.calibration.placement import Placement, place_as
from unblur.runtime.calibration_table import (
    CalibrationTable,
    Measured,
    Origin,
    Preprocessing,
    StepPolicy,
    TensorRange,
    misfit,
    preprocessing_of,
)


def model_sha256(model: ModelProto) -> str:
    """sha256 of the file that `model` is, or would be written to."""
    return hashlib.sha256(onnx_bytes(model)).hexdigest()


def table_of(
    model: ModelProto,
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
    spec = spec_of(model)
    return CalibrationTable(
        method=method,
        percentile=percentile,
        step_policy=step_policy,
        preset=spec.preset,
        steps=spec.steps,
        model_sha256=model_sha256(model),
        preprocessing=preprocessing or preprocessing_of(spec),
        images=images,
        ranges={name: ranges[name] for name in placement.activations},
        implicit={name: seen for name, seen in ranges.items() if name not in placement.activations},
        kept=placement.kept,
        excluded=placement.excluded,
        reads=placement.reads,
        image_tensors=tuple(sorted(placement.images)),
        measured=measured,
    )


def check_fits(table: CalibrationTable, model: ModelProto, *, where: str = "the calibration table") -> None:
    """CalibrationError with the field and both values if `table` was not made for `model`, an fp32 graph."""
    spec = spec_of(model)
    table.check_spec(spec, where=where)
    if table.model_sha256 != model_sha256(model):
        mend = "calibrate this model, or `unblur table bind` the table if the weights were tuned with it"
        raise misfit(where, spec, "model_sha256", table.model_sha256, model_sha256(model), mend)


def bound_to(
    table: CalibrationTable, model: ModelProto, *, where: str = "the calibration table"
) -> CalibrationTable:
    """`table` for other weights of the same network: those that were fine-tuned against these very ranges.

    Raises CalibrationError if it is another network, by its spec or by the names of its tensors.
    """
    spec = spec_of(model)
    table.check_spec(spec, where=where)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    for name in (*table.ranges, *table.implicit, *table.reads):
        if name not in names:
            raise misfit(where, spec, f"tensor '{name}'", "in the table", "not in the graph")
    return replace(table, model_sha256=model_sha256(model))


def at_fewer_steps(
    table: CalibrationTable, model: ModelProto, *, where: str = "the calibration table"
) -> CalibrationTable:
    """`table` for the same weights at fewer steps of the recursion: the same layers in INT8, with the same ranges.

    What a weight reads the n-th time is one tensor in both graphs, whatever it is called there: the steps of the
    shorter recursion are the first ones of the longer. Implicit INT8 gets no ranges. Raises CalibrationError if it
    is another network, by its spec or because a weight is used more often than the table knows.
    """
    spec = spec_of(model)
    table.check_spec(replace(spec, steps=table.steps), where=where)
    placement = place_as(model, table.kept, table.excluded)
    ranges: dict[str, TensorRange] = {}
    for weight, tensors in placement.reads.items():
        known = table.reads.get(weight, ())
        if len(tensors) > len(known):
            raise misfit(where, spec, f"number of tensors that '{weight}' reads", len(known), len(tensors))
        ranges.update((tensor, table.ranges[name]) for tensor, name in zip(tensors, known, strict=False))
    return replace(
        table,
        steps=spec.steps,
        model_sha256=model_sha256(model),
        ranges=ranges,
        implicit={},
        reads=placement.reads,
        image_tensors=tuple(sorted(placement.images)),
        measured=None,
    )
