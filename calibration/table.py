"""Which calibration table belongs to which ONNX model."""

import hashlib
from dataclasses import replace

from onnx import ModelProto

from unblur.calibration.onnx_file import onnx_bytes, spec_of
from unblur.runtime.calibration_table import CalibrationTable, misfit


def model_sha256(model: ModelProto) -> str:
    """sha256 of the file that `model` is, or would be written to."""
    return hashlib.sha256(onnx_bytes(model)).hexdigest()


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
