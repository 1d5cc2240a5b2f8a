from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from unblur.calibration.onnx_model import OnnxModel, described, onnx_bytes, open_session
from unblur.export.fp16 import fp16_from_fp32, half_ends, int8_fp16_from_int8
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.errors import BadInput
from unblur.runtime.metrics import psnr_float_db
from unblur.train.networks import DeblurringNetwork


def _restore(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = model.session()
    restored: NDArray[np.float32] = session.run(None, {"blurred": images})[0]
    return restored


@pytest.fixture(scope="module")
def global_fp16(make_network: Callable[..., DeblurringNetwork]) -> OnnxModel:
    return fp16_from_fp32(onnx_from_network(make_network(pooling="global", steps=1)))


def test_photographs_lose_nothing_that_is_seen(
    fp32: OnnxModel, fp16: OnnxModel, photographs: list[NDArray[np.float32]]
) -> None:
    for photograph in photographs:
        db = psnr_float_db(_restore(fp16, photograph), _restore(fp32, photograph))
        assert 55 <= db < 100  # and it really computes in float16


def test_the_graph_is_typed_and_its_ends_are_float32(fp16: OnnxModel) -> None:
    onnx.checker.check_model(fp16.proto, full_check=True)
    ends = (*fp16.graph.input, *fp16.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    assert Counter(node.op_type for node in fp16.graph.node)["Cast"] == 2
    weights = [tensor for tensor in fp16.graph.initializer if tensor.name.endswith(("weight", "bias"))]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}


def test_the_ends_of_an_engine_are_float16(fp16: OnnxModel, photographs: list[NDArray[np.float32]]) -> None:
    """Nothing is cast there any more, and nothing else is computed than in the file."""
    engine = onnx.load_from_string(onnx_bytes(half_ends(fp16)))
    onnx.checker.check_model(engine, full_check=True)
    assert {end.type.tensor_type.elem_type for end in (*engine.graph.input, *engine.graph.output)} == {
        TensorProto.FLOAT16
    }
    assert "Cast" not in {node.op_type for node in engine.graph.node}
    images = photographs[0].astype(np.float16)
    (restored,) = open_session(engine).run(None, {"blurred": images})
    assert restored.dtype == np.float16
    np.testing.assert_array_equal(restored, _restore(fp16, images.astype(np.float32)).astype(np.float16))


def test_what_needs_float32_at_the_ends_gets_a_cast(
    fp32: OnnxModel, photographs: list[NDArray[np.float32]]
) -> None:
    """As where the image itself is compared."""
    engine = half_ends(fp32)
    onnx.checker.check_model(engine, full_check=True)
    assert Counter(node.op_type for node in engine.graph.node)["Cast"] == 2
    images = photographs[0].astype(np.float16)
    (restored,) = open_session(engine).run(None, {"blurred": images})
    assert psnr_float_db(restored.astype(np.float32), _restore(fp32, images.astype(np.float32))) > 65


def test_metadata_opset_and_shared_weights_are_kept(fp32: OnnxModel, fp16: OnnxModel) -> None:
    assert fp16.precision == "fp16"
    assert fp16.spec == fp32.spec
    assert fp16.proto.opset_import == fp32.proto.opset_import
    assert [tensor.name for tensor in fp16.graph.initializer] == [t.name for t in fp32.graph.initializer]
    assert len(fp16.data) < 0.7 * len(fp32.data)


def test_the_input_model_is_left_alone(fp32: OnnxModel) -> None:
    before = fp32.data
    first = fp16_from_fp32(fp32)
    assert fp32.data == before
    assert fp16_from_fp32(fp32).data == first.data


def test_averages_over_the_frame_are_taken_in_float32(global_fp16: OnnxModel) -> None:
    """A frame of 720 x 1280 summed in float16 would pass 65504."""
    half = global_fp16
    producer = {name: node for node in half.graph.node for name in node.output}
    reads = {node.name: producer[node.input[0]] for node in half.graph.node if node.op_type == "ReduceMean"}
    casts = [node for node in reads.values() if node.op_type == "Cast"]
    assert len(reads) == 2  # one over the frame, one over the channels of the spatial gate
    assert [attribute.i for node in casts for attribute in node.attribute] == [TensorProto.FLOAT]


def test_a_bright_frame_does_not_overflow(global_fp16: OnnxModel) -> None:
    restored = _restore(global_fp16, np.ones((1, 3, 704, 1280), np.float32))
    assert np.isfinite(restored).all()


def test_consumers_of_one_tensor_share_its_cast(fp32: OnnxModel) -> None:
    shape = ["batch", 3, "height", "width"]
    nodes = [
        helper.make_node("GlobalAveragePool", ["blurred"], ["a"], "pool_a"),
        helper.make_node("GlobalAveragePool", ["blurred"], ["b"], "pool_b"),
        helper.make_node("Add", ["a", "b"], ["gate"], "add"),
        helper.make_node("Mul", ["blurred", "gate"], ["restored"], "mul"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("blurred", "restored")]
    model = helper.make_model(
        helper.make_graph(nodes, "pools", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    model = described(model, fp32.spec, "fp32")
    half = fp16_from_fp32(model)
    onnx.checker.check_model(half.proto, full_check=True)
    images = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    assert psnr_float_db(_restore(half, images), _restore(model, images)) > 55


def test_each_conversion_takes_only_its_source(fp32: OnnxModel, fp16: OnnxModel) -> None:
    with pytest.raises(BadInput, match="made from fp32, got precision 'fp16'"):
        fp16_from_fp32(fp16)
    with pytest.raises(BadInput, match="expected a Q/DQ graph, got precision 'fp32'"):
        int8_fp16_from_int8(fp32)


def test_tiny_weights_survive(fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "embed.bias")
    tiny = np.full_like(numpy_helper.to_array(bias), 1e-9)
    bias.CopyFrom(numpy_helper.from_array(tiny, bias.name))
    half = next(t for t in fp16_from_fp32(model).graph.initializer if t.name == "embed.bias")
    assert (numpy_helper.to_array(half) > 0).all()


def test_what_is_compared_stays_float32(fp32: OnnxModel) -> None:
    """A chain ending in a comparison keeps every digit; rounded to float16, 0.3 + 2e-5 is not above 0.3."""
    nodes = [
        helper.make_node("Add", ["blurred", "shift"], ["shifted"], "shifted"),
        helper.make_node("Sub", ["shifted", "shift"], ["same"], "same"),
        helper.make_node("Greater", ["same", "threshold"], ["above"], "above"),
        helper.make_node("Cast", ["above"], ["mask"], "mask", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["mask", "blurred"], ["restored"], "restored"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ("blurred", "restored")
    ]
    constants = {"shift": 1.0, "threshold": 0.3}
    graph = helper.make_graph(
        nodes,
        "threshold",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    graph_file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = described(graph_file, fp32.spec, "fp32")
    images = np.float32(0.3) + np.float32(2e-5) * np.array([-1, 1] * 24, np.float32).reshape(1, 3, 4, 4)
    half = fp16_from_fp32(model)
    assert np.array_equal(_restore(half, images) > 0, images > 0.3)
