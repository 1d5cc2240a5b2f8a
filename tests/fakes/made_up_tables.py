"""A calibration table for any fp32 model, with ranges that were not measured."""

from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import place
from unblur.calibration.table import table_of
from unblur.calibration.trt_cache import cache_tensors
from unblur.runtime.model.calibration_table import CalibrationTable, TensorRange


def made_up_table(model: OnnxModel, *, cautious: bool = True) -> CalibrationTable:
    """Every range is [-1, 1.5], [-1, 1.6] ..., one wider than the other. cautious: see `place`."""
    placement = place(model, cautious=cautious)
    tensors = dict.fromkeys((*placement.activations, *cache_tensors(model, placement)))
    ranges = {name: TensorRange(-1.0, 1.5 + index / 10, 1.5 + index / 10) for index, name in enumerate(tensors)}
    return table_of(model, placement, ranges, method="minmax", images={"a.png": "0" * 64})
