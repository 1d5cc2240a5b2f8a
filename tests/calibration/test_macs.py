import numpy as np
from onnx import numpy_helper

from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import layer_macs


def test_each_step_counts_and_a_pooled_gate_hardly_does(fp32: OnnxModel) -> None:
    macs = layer_macs(fp32, (64, 96))
    assert macs == {
        "embed.w": 2 * 64 * 96 * 8 * 3 * 9,
        "body.w": 2 * 64 * 96 * 8 * 8 * 9,
        "gate.w": 2 * 8 * 8,
        "tail.w": 2 * 64 * 96 * 3 * 8 * 9,
    }


def test_a_size_is_padded_to_what_the_model_takes(fp32: OnnxModel) -> None:
    assert layer_macs(fp32, (63, 95)) == layer_macs(fp32, (64, 96))


def test_a_transposed_convolution_is_counted_by_its_input(fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    for node in model.graph.node:
        if node.name.startswith("body"):
            node.op_type = "ConvTranspose"
    assert layer_macs(model, (64, 96)) == layer_macs(fp32, (64, 96))  # stride 1, as many channels in as out
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "body.w")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((8, 8, 1, 1), np.float32), "body.w"))
    for node in model.graph.node:
        if node.name.startswith("body"):
            del node.attribute[:]
    assert layer_macs(model, (64, 96))["body.w"] == 2 * 64 * 96 * 8 * 8
