"""fp32 graph -> explicit Q/DQ graph: collect the ranges, decide the placement, edit.

The settings are those that TensorRT takes as they are: signed 8 bit with zero point 0 on both sides, one scale a
tensor for activations and one a channel for weights, biases in float, only the inputs of Conv and ConvTranspose.
The output of a convolution stays float, so the Add of a residual reads the convolution as it is, TensorRT's fused
pattern. What is not quantised stays float32 here, so that the cost of INT8 is seen alone;
`unblur.export.precision` turns that rest into float16 for an engine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from unblur.calibration.observe import Range, observe_minmax
from unblur.calibration.onnx_file import describe, precision_of, sort_nodes, spec_of, strip_provenance
from unblur.calibration.placement import CONVOLUTIONS, Placement, place
from unblur.calibration.sample import Sample
from unblur.calibration.table import CalibrationTable, TensorRange, model_sha256, preprocessing_of
from unblur.calibration.trt_cache import cache_tensors
from unblur.runtime.errors import CalibrationError

_TENSORRT_SETTINGS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(CONVOLUTIONS),
}


@dataclass(frozen=True)
class Quantized:
    """An INT8 model and the table of ranges it was made from."""

    model: ModelProto
    table: CalibrationTable


def quantize_minmax(model: ModelProto, sample: Sample, progress: Callable[[], object] | None = None) -> Quantized:
    """The INT8 form of an fp32 graph, every range as wide as what was seen on the pictures.

    One picture is held at a time. progress: called once a picture.
    Raises CalibrationError if `model` is not fp32 or nothing in it can be quantised, BadInput for a bad picture.
    """
    if precision_of(model) != "fp32":
        raise CalibrationError(
            f"INT8 is made from the fp32 model, this one is '{precision_of(model)}'; export with --precision fp32"
        )
    placement = place(model)
    batches = sample.batches(spec_of(model).multiple_of)
    implicit = [name for name in cache_tensors(model, placement) if name not in placement.activations]
    ranges = observe_minmax(model, [*placement.activations, *implicit], batches, progress)
    spec = spec_of(model)
    table = CalibrationTable(
        method="minmax",
        percentile=None,
        step_policy="per-step",
        preset=spec.preset,
        steps=spec.steps,
        model_sha256=model_sha256(model),
        preprocessing=preprocessing_of(spec, blurred=sample.blurred),
        images=sample.hashes(),
        ranges={name: _widest(ranges[name]) for name in placement.activations},
        implicit={name: _widest(ranges[name]) for name in implicit},
        kept=placement.kept,
    )
    return Quantized(insert_qdq(model, placement, ranges), table)


def _widest(seen: Range) -> TensorRange:
    """A tensor that is always zero fits any range."""
    return TensorRange(seen.lowest, seen.highest, max(-seen.lowest, seen.highest) or 1.0)


def insert_qdq(model: ModelProto, placement: Placement, ranges: Mapping[str, Range]) -> ModelProto:
    """Quantise the weights of the placed convolutions and put Q/DQ before them; `model` is left alone.

    ranges: for each of `placement.activations`; a scale is the largest magnitude / 127.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=_tensors_data(ranges),
        nodes_to_quantize=[node.name for node in placement.quantized],
        nodes_to_exclude=[],
        op_types_to_quantize=list(CONVOLUTIONS),
        extra_options=_TENSORRT_SETTINGS,
    )
    quantized: ModelProto = quantizer.quantize_model()
    sort_nodes(quantized.graph)
    strip_provenance(quantized)
    describe(quantized, spec_of(model), "int8")
    return quantized


def _tensors_data(ranges: Mapping[str, Range]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(seen.lowest), highest=np.float32(seen.highest))
            for name, seen in ranges.items()
        },
    )
