from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import Settings, calibrate
from unblur.calibration.observe import observe
from unblur.calibration.onnx_model import OnnxModel, described
from unblur.calibration.placement import place
from unblur.calibration.quantize import quantize, quantize_with
from unblur.runtime.errors import CalibrationError
from unblur.runtime.model.calibration_table import CalibrationTable, TensorRange


@pytest.fixture(scope="module")
def ranges(fp32: OnnxModel) -> dict[str, TensorRange]:
    """Wide enough for pictures of any kind."""
    names = place(fp32, cautious=False).activations
    batch = np.random.default_rng(2).random((1, 3, 64, 96), np.float32)
    seen = {name: found.range for name, found in observe(fp32, names, [batch], kind="ranges").items()}
    return {name: TensorRange(found.lowest, found.highest, found.magnitude) for name, found in seen.items()}


def _int8(fp32: OnnxModel, ranges: dict[str, TensorRange], *, cautious: bool = True) -> OnnxModel:
    return quantize(fp32, place(fp32, cautious=cautious), ranges)


def _initializers(model: OnnxModel) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _restore(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = model.session(optimized=False)
    restored: NDArray[np.float32] = session.run(None, {"blurred": images})[0]
    return restored


def test_q_dq_is_what_tensorrt_takes(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    model = _int8(fp32, ranges)
    onnx.checker.check_model(model.proto, full_check=True)
    tensors = _initializers(model)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["QuantizeLinear"] == 2  # the input of body in each of the two steps
    assert operators["DequantizeLinear"] == 3  # those, and the one weight that both steps share
    zero_points = [value for name, value in tensors.items() if name.endswith("zero_point")]
    assert all(value.dtype == np.int8 and not value.any() for value in zero_points)
    assert tensors["body.w_scale"].shape == (8,)  # one per output channel
    assert tensors["features1_scale"].shape == ()
    assert tensors["body.b"].dtype == np.float32


def test_the_residual_adds_the_convolution_as_it_is(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    model = _int8(fp32, ranges)
    add = next(node for node in model.graph.node if node.name == "add_1")
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert producers[add.input[1]] == "Conv"


def test_a_shared_weight_is_stored_once_and_in_8_bits(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    model = _int8(fp32, ranges)
    of_body = [name for name in _initializers(model) if name.startswith("body.w")]
    assert sorted(of_body) == ["body.w_quantized", "body.w_scale", "body.w_zero_point"]
    assert _initializers(model)["body.w_quantized"].dtype == np.int8


def test_a_scale_is_the_chosen_magnitude_over_127(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    tensors = _initializers(_int8(fp32, ranges))
    assert tensors["features1_scale"] == pytest.approx(ranges["features1"].amax / 127, rel=1e-6)
    weights = _initializers(fp32)["body.w"]
    largest = np.abs(weights).max(axis=(1, 2, 3))
    assert tensors["body.w_scale"] == pytest.approx(largest / 127, rel=1e-6)


def test_only_convolutions_read_the_image_in_int8(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    """The global residual adds the image as it came; the residual inside adds what TensorRT fuses."""
    model = _int8(fp32, ranges, cautious=False)
    reads = {node.name: node.input[0] for node in model.graph.node}
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert producers[reads["embed_1"]] == "DequantizeLinear"
    assert (reads["residual_1"], reads["residual_2"]) == ("blurred", "blurred")
    assert producers[reads["add_1"]] == "DequantizeLinear"


def test_the_restored_image_stays_close(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    model = _int8(fp32, ranges)
    images = np.random.default_rng(3).random((1, 3, 64, 96), np.float32)
    expected, restored = _restore(fp32, images), _restore(model, images)
    error = np.mean((restored - expected) ** 2)
    assert 0 < error < 10 ** (-50 / 10)  # better than 50 dB, and really quantised


def test_spec_and_precision_go_into_the_metadata(fp32: OnnxModel, ranges: dict[str, TensorRange]) -> None:
    model = _int8(fp32, ranges)
    assert model.precision == "int8"
    assert model.spec == fp32.spec
    assert model.proto.producer_name == "unblur"
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT,
    ]


def test_a_table_makes_the_same_model_again(fp32: OnnxModel, pictures: Path) -> None:
    made = calibrate(fp32, find_sample(pictures), Settings(exclude=("tail*",), budget_db=1.0))
    table = CalibrationTable.from_json(made.table.to_json(), where="here")
    assert quantize_with(fp32, table).data == made.model.data


def test_a_table_of_another_model_is_refused_with_the_field(fp32: OnnxModel, pictures: Path) -> None:
    table = calibrate(fp32, find_sample(pictures)).table
    other = OnnxModel.of(fp32.copied())
    other = described(other.proto, replace(fp32.spec, steps=3), "fp32")
    with pytest.raises(CalibrationError, match="its steps is 2, the model's 3"):
        quantize_with(other, table)
