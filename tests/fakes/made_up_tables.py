"""A calibration table for any fp32 model, with ranges that were not measured."""

from onnx import ModelProto

from unblur.calibration.onnx_file import spec_of
from unblur.calibration.placement import place
from unblur.calibration.table import model_sha256
from unblur.calibration.trt_cache import cache_tensors
from unblur.runtime.calibration_table import CalibrationTable, TensorRange, preprocessing_of


def made_up_table(model: ModelProto, *, cautious: bool = True) -> CalibrationTable:
    """Every range is [-1, 1.5], [-1, 1.6] ..., one wider than the other. cautious: see `place`."""
    placement, spec = place(model, cautious=cautious), spec_of(model)
    tensors = dict.fromkeys((*placement.activations, *cache_tensors(model, placement)))
    ranges = {name: TensorRange(-1.0, 1.5 + index / 10, 1.5 + index / 10) for index, name in enumerate(tensors)}
    return CalibrationTable(
        method="minmax",
        percentile=None,
        step_policy="per-step",
        preset=spec.preset,
        steps=spec.steps,
        model_sha256=model_sha256(model),
        preprocessing=preprocessing_of(spec),
        images={"a.png": "0" * 64},
        ranges={name: ranges[name] for name in placement.activations},
        implicit={name: seen for name, seen in ranges.items() if name not in placement.activations},
        kept=placement.kept,
        reads=placement.reads,
        image_tensors=tuple(sorted(placement.images)),
    )
