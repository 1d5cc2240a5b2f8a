"""What is read off a graph, on one made by hand whose numbers can be checked with a pencil, and on a counted."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from unblur.calibration.macs import layer_macs
from unblur.calibration.onnx_file import describe
from unblur.export.estimate.graph import Network, Operation, network_at
from unblur.export.estimate.kernels import kernels_of
from unblur.runtime.errors import SpecMismatch
from unblur.runtime.spec import ModelSpec

WEIGHTS = {"wide": (8, 3, 3, 3), "deep": (8, 1, 3, 3), "up": (8, 4, 2, 2), "out": (3, 4, 1, 1)}


def by_hand() -> ModelProto:
    """first: 3 -> 8 channels; relu; depthwise; mean over channels, times it; down and up again; last: 4 -> 3."""
    pads: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "wide"], ["a"], "step1/first/Conv", **pads),
        helper.make_node("Relu", ["a"], ["b"], "step1/first/Relu"),
        helper.make_node("Conv", ["b", "deep"], ["c"], "step1/depth/Conv", group=8, **pads),
        helper.make_node("ReduceMean", ["c", "channels"], ["d"], "step1/gate/ReduceMean"),
        helper.make_node("Mul", ["c", "d"], ["e"], "step1/gate/Mul"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], "pool/GlobalAveragePool"),
        helper.make_node("Reshape", ["f", "flat"], ["g"], "pool/Reshape"),
        helper.make_node("Reshape", ["g", "square"], ["h"], "pool/Reshape_1"),
        helper.make_node("Add", ["e", "h"], ["i"], "pool/Add"),
        helper.make_node("ConvTranspose", ["i", "up"], ["j"], "up/ConvTranspose", strides=[2, 2]),
        helper.make_node("Conv", ["j", "out"], ["restored"], "last/Conv"),
    ]
    constants = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in WEIGHTS.items()]
    constants += [
        numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in {"channels": [1], "flat": [1, 8], "square": [1, 8, 1, 1]}.items()
    ]
    return model_of(nodes, constants)


def model_of(nodes: list[NodeProto], constants: list[TensorProto]) -> ModelProto:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "height", "width"])
        for name in ("image", "restored")
    ]
    graph = helper.make_graph(nodes, "by hand", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    describe(model, ModelSpec("lprn", "lprn-s", 1, 2, 0, "none"), "fp32")
    return model


@pytest.fixture(scope="module")
def counted() -> Network:
    """At 9 x 16 pixels, which is padded to 10 x 16."""
    return network_at(by_hand(), (9, 16))


@pytest.fixture(scope="module")
def operations(counted: Network) -> dict[str, Operation]:
    return {operation.name: operation for operation in counted.operations}


def test_what_multiplies_is_counted_as_its_products(operations: dict[str, Operation]) -> None:
    pixels = 10 * 16
    expected = {
        "step1/first/Conv": 2 * pixels * 8 * 3 * 9,
        "step1/depth/Conv": 2 * pixels * 8 * 9,
        "up/ConvTranspose": 2 * pixels * 8 * 4 * 4,
        "last/Conv": 2 * 4 * pixels * 3 * 4,
    }
    assert {name: operations[name].flops for name in expected} == expected
    assert operations["step1/first/Conv"].lanes == (3, 8)
    assert operations["step1/depth/Conv"].lanes == (1, 1)


def test_every_operation_has_its_kind_stage_and_step(operations: dict[str, Operation]) -> None:
    assert {name: operation.kind for name, operation in operations.items()} == {
        "step1/first/Conv": "convolution",
        "step1/first/Relu": "elementwise",
        "step1/depth/Conv": "grouped",
        "step1/gate/ReduceMean": "reduction",
        "step1/gate/Mul": "elementwise",
        "pool/GlobalAveragePool": "pooling",
        "pool/Add": "elementwise",
        "up/ConvTranspose": "transposed",
        "last/Conv": "convolution",
    }
    assert (operations["step1/gate/Mul"].stage, operations["step1/gate/Mul"].step) == ("gate", 1)
    assert (operations["pool/Add"].stage, operations["pool/Add"].step) == ("pool", None)


def test_another_view_of_a_tensor_is_that_tensor(counted: Network, operations: dict[str, Operation]) -> None:
    assert operations["pool/Add"].reads == ("e", "f")
    assert counted.elements["f"] == 8
    assert counted.weights == sum(map(np.prod, WEIGHTS.values())) + 1 + 2 + 4


def test_most_memory_is_needed_where_two_large_tensors_live(counted: Network) -> None:
    """The input and the output of the last convolution, 4 and 3 channels at four times the pixels."""
    assert counted.peak_elements() == (4 + 3) * 4 * 160


def test_single_kernels_move_everything_once(counted: Network) -> None:
    kernels = kernels_of(counted, fuse=False)
    assert [kernel.main for kernel in kernels] == list(counted.operations)
    assert all((kernel.reads, kernel.writes) == (kernel.main.reads, kernel.main.writes) for kernel in kernels)


def test_fused_kernels_keep_inside_what_nobody_else_reads(counted: Network) -> None:
    kernels = {kernel.main.name: kernel for kernel in kernels_of(counted, fuse=True)}
    assert list(kernels) == [
        "step1/first/Conv",
        "step1/depth/Conv",
        "step1/gate/ReduceMean",
        "pool/GlobalAveragePool",
        "up/ConvTranspose",
        "last/Conv",
    ]
    assert kernels["step1/first/Conv"].writes == ("b",)
    assert kernels["step1/gate/ReduceMean"].reads == ("c",)  # Mul is in it
    assert kernels["step1/gate/ReduceMean"].writes == ("e",)
    assert kernels["pool/GlobalAveragePool"].reads == ("e",)
    assert kernels["pool/GlobalAveragePool"].writes == ("i",)


def test_what_is_written_in_place_needs_no_kernel(counted: Network) -> None:
    names = [kernel.main.name for kernel in kernels_of(counted, fuse=True, in_place={"GlobalAveragePool"})]
    assert "pool/GlobalAveragePool" not in names


def test_a_network_has_the_multiply_accumulates_that_calibration_counts(fp32: ModelProto) -> None:
    size_hw = (90, 150)
    network = network_at(fp32, size_hw)
    convolutions = [o for o in network.operations if o.operator in ("Conv", "ConvTranspose")]
    assert sum(operation.flops for operation in convolutions) == 2 * sum(layer_macs(fp32, size_hw).values())


def test_work_grows_with_the_pixels(fp32: ModelProto) -> None:
    small, large = (network_at(fp32, size_hw) for size_hw in ((128, 192), (256, 384)))
    assert large.flops == pytest.approx(4 * small.flops, rel=0.001)
    assert large.peak_elements() == pytest.approx(4 * small.peak_elements(), rel=0.001)
    assert large.weights == small.weights


def test_a_size_that_depends_on_the_pixels_is_refused() -> None:
    nodes = [
        helper.make_node("NonZero", ["image"], ["where"], "NonZero"),
        helper.make_node("Cast", ["where"], ["restored"], "Cast", to=TensorProto.FLOAT),
    ]
    with pytest.raises(SpecMismatch, match="the size of 'where' cannot be told from the graph; export the model"):
        network_at(model_of(nodes, []), (16, 16))
