"""fp32 graph -> explicit Q/DQ graph, through ONNX Runtime's quantiser with our ranges and our placement.

The settings are those that TensorRT takes as they are: signed 8 bit with zero point 0 on both sides, one scale per
tensor for activations and one per channel for weights, biases in float, only the inputs of Conv and ConvTranspose.
The output of a convolution stays float, so the Add of a residual reads the convolution as it is, TensorRT's fused
pattern; where an Add reads two of them, one is rounded (`Join`). What is not quantised stays float32 here, so that
the cost of INT8 is seen alone; `unblur.export.fp16` turns that rest into float16 for an engine.
"""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import GraphProto, ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from unblur.calibration.graph_view import sort_nodes, strip_provenance
from unblur.calibration.onnx_model import OnnxModel, described
from unblur.calibration.placement import CONVOLUTIONS, Placement, place_as
from unblur.calibration.table import check_fits
from unblur.runtime.model.calibration_table import CalibrationTable, TensorRange

_TENSORRT_SETTINGS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(CONVOLUTIONS),
}


def quantize(model: OnnxModel, placement: Placement, ranges: Mapping[str, TensorRange]) -> OnnxModel:
    """The INT8 variant of an fp32 graph: the weights of the placed convolutions in 8 bits, Q/DQ before them.

    ranges: of what the placed convolutions read at least, a join without one stays float; a scale is amax / 127. A
    weight that several steps share is stored once. `model` is left alone.
    """
    known = {name: ranges[name] for name in placement.activations if name in ranges}
    quantizer = QDQQuantizer(
        model.copied(),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=_tensors_data(known),
        nodes_to_quantize=[node.name for node in placement.quantized],
        nodes_to_exclude=[],
        op_types_to_quantize=list(CONVOLUTIONS),
        extra_options=_TENSORRT_SETTINGS,
    )
    for join in placement.joins:
        if join.tensor in known:
            quantizer.quantize_activation_tensor(join.tensor)
    quantized: ModelProto = quantizer.quantize_model()
    _keep_images_float(quantized.graph, placement.images)
    sort_nodes(quantized.graph)
    strip_provenance(quantized)
    return described(quantized, model.spec, "int8")


def quantize_with(model: OnnxModel, table: CalibrationTable) -> OnnxModel:
    """The INT8 variant that `table` was made for; CalibrationError with the field at fault if it is another's."""
    check_fits(table, model)
    return quantize(model, place_as(model, table.kept, table.excluded), table.ranges)


def _keep_images_float(graph: GraphProto, images: Collection[str]) -> None:
    """Let all but convolutions read the image itself, where ONNX Runtime let everything read it rounded.

    The identity branch of a residual in the middle of a network should be INT8, which TensorRT fuses; that of the
    whole image would round the result to 7 bits, for pixels are never negative.
    """
    integers = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    rounded = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    originals = {rounded[integers[name]]: name for name in images}
    for node in graph.node:
        if node.op_type not in CONVOLUTIONS:
            for index, name in enumerate(node.input):
                node.input[index] = originals.get(name, name)


def _tensors_data(ranges: Mapping[str, TensorRange]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(-seen.amax), highest=np.float32(seen.amax))
            for name, seen in ranges.items()
        },
    )
