import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from unblur.calibration.onnx_file import describe, onnx_bytes, precision_of, spec_of
from unblur.calibration.quantize import quantize_minmax
from unblur.calibration.sample import find_sample
from unblur.runtime.errors import CalibrationError


def _initializers(model: ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _restore(model: ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(onnx_bytes(model), options, providers=["CPUExecutionProvider"])
    restored: NDArray[np.float32] = session.run(None, {"blurred": images})[0]
    return restored


def test_q_dq_is_what_tensorrt_takes(fp32: ModelProto, pictures: Path) -> None:
    model = quantize_minmax(fp32, find_sample(pictures)).model
    onnx.checker.check_model(model, full_check=True)
    tensors = _initializers(model)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["QuantizeLinear"] == 2  # the input of body in each of the two steps
    assert operators["DequantizeLinear"] == 3  # those, and the one weight that both steps share
    zero_points = [value for name, value in tensors.items() if name.endswith("zero_point")]
    assert all(value.dtype == np.int8 and not value.any() for value in zero_points)
    assert tensors["body.w_scale"].shape == (8,)  # one per output channel
    assert tensors["features1_scale"].shape == ()
    assert tensors["body.b"].dtype == np.float32


def test_the_residual_adds_the_convolution_as_it_is(fp32: ModelProto, pictures: Path) -> None:
    model = quantize_minmax(fp32, find_sample(pictures)).model
    add = next(node for node in model.graph.node if node.name == "add_1")
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert producers[add.input[1]] == "Conv"


def test_a_shared_weight_is_stored_once_and_in_8_bits(fp32: ModelProto, pictures: Path) -> None:
    model = quantize_minmax(fp32, find_sample(pictures)).model
    of_body = [name for name in _initializers(model) if name.startswith("body.w")]
    assert sorted(of_body) == ["body.w_quantized", "body.w_scale", "body.w_zero_point"]
    assert _initializers(model)["body.w_quantized"].dtype == np.int8


def test_scales_are_the_largest_magnitude_over_127(fp32: ModelProto, pictures: Path) -> None:
    quantized = quantize_minmax(fp32, find_sample(pictures))
    tensors = _initializers(quantized.model)
    for name, seen in quantized.table.ranges.items():
        assert tensors[f"{name}_scale"] == pytest.approx(max(-seen.lowest, seen.highest) / 127, rel=1e-6)
    weights = _initializers(fp32)["body.w"]
    largest = np.abs(weights).max(axis=(1, 2, 3))
    assert tensors["body.w_scale"] == pytest.approx(largest / 127, rel=1e-6)


def test_the_restored_image_stays_close(fp32: ModelProto, pictures: Path) -> None:
    model = quantize_minmax(fp32, find_sample(pictures)).model
    images = np.random.default_rng(3).random((1, 3, 64, 96), np.float32)
    expected, restored = _restore(fp32, images), _restore(model, images)
    error = np.mean((restored - expected) ** 2)
    assert 0 < error < 10 ** (-50 / 10)  # better than 50 dB, and really quantised


def test_the_table_says_what_it_was_measured_on(fp32: ModelProto, pictures: Path) -> None:
    first, second = (quantize_minmax(fp32, find_sample(pictures)) for _ in range(2))
    assert onnx_bytes(first.model) == onnx_bytes(second.model)
    assert first.table.identity == second.table.identity
    document = json.loads(first.table.to_json())
    assert document["schema"] == 2
    assert document["method"] == "minmax"
    assert list(document["images"]) == ["a.png", "b.png", "c.png"]
    assert document["ranges"]["features1"]["lowest"] == 0  # behind a ReLU
    assert document["kept"]["gate.w"] == "attention gate"
    other = quantize_minmax(fp32, find_sample(pictures, blurred=True)).table
    assert other.identity != first.table.identity


def test_spec_and_precision_go_into_the_metadata(fp32: ModelProto, pictures: Path) -> None:
    model = quantize_minmax(fp32, find_sample(pictures)).model
    assert precision_of(model) == "int8"
    assert spec_of(model) == spec_of(fp32)
    assert model.producer_name == "unblur"
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT,
    ]


def test_only_fp32_is_quantised(fp32: ModelProto, pictures: Path) -> None:
    model = ModelProto()
    model.CopyFrom(fp32)
    describe(model, spec_of(fp32), "fp16")
    with pytest.raises(CalibrationError, match="this one is 'fp16'; export with --precision fp32"):
        quantize_minmax(model, find_sample(pictures))
