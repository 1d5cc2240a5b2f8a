"""What does not take a network of ours; `tests/export/test_layers_onnx.py` has those."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import foreign_networks as foreign
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.profile.layers_onnx import onnx_layers, profile_runs
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, SpecOverrides

SHAPE = (1, 3, 32, 48)


def test_a_graph_with_foreign_names_counts_the_work_of_its_own_shapes(tiny_onnx: Path) -> None:
    """Its 8 channels are padded to 16 on a CPU with AVX-512."""
    *layers, _ = onnx_layers(tiny_onnx, SHAPE, threads=1, runs=2)
    assert {(layer.stage, layer.step) for layer in layers} == {("", None)}
    positions = SHAPE[2] * SHAPE[3] // 16
    convolutions = [layer for layer in layers if layer.operator == "Conv"]
    assert [layer.flops for layer in convolutions] == [2 * positions * 48 * 8 * 9] * 4


@pytest.mark.parametrize("width", [3, 5, 17, 24])
def test_padded_channels_are_not_work(tmp_path: Path, width: int) -> None:
    """Of widths that no CPU's vectors hold exactly."""
    *layers, _ = onnx_layers(_two_convolutions(tmp_path / "foreign.onnx", width), SHAPE, threads=1, runs=1)
    convolutions = [layer for layer in layers if layer.operator == "Conv"]
    assert [layer.flops for layer in convolutions] == [2 * SHAPE[2] * SHAPE[3] * 3 * width * 9] * 2


def test_what_is_stated_of_a_network_from_elsewhere_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_images() -> onnx.ModelProto:
        graph = foreign.Graph()
        for name in ("first", "second"):
            graph.conv("image", 3, 3, output=name)
        return graph.model({"image": foreign.FREE}, {"first": foreign.FREE, "second": foreign.FREE})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = foreign.write(two_images, tmp_path)
    with pytest.raises(SpecMismatch, match="give --output-name"):
        onnx_layers(path, SHAPE, threads=1, runs=1)
    assert onnx_layers(path, SHAPE, threads=1, runs=1, overrides=SpecOverrides(output_name="first"))


def test_nothing_is_left_on_the_disk(
    tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(folder)
    onnx_layers(tiny_onnx, SHAPE, threads=1, runs=1)
    assert list(folder.iterdir()) == []


def test_nodes_run_one_after_the_other_within_a_run(tiny_onnx: Path) -> None:
    profile = profile_runs(tiny_onnx, SHAPE, runs=3, warm_up=1, threads=1)
    assert [node.operator for node in profile.nodes].count("Conv") == 4
    assert all(node.ms > 0 for node in profile.nodes if node.operator == "Conv")
    assert profile.between_ms > 0


def test_a_convolution_that_runs_in_int8_is_told_as_such(tmp_path: Path) -> None:
    *layers, _ = onnx_layers(_quantized(tmp_path / "int8.onnx"), SHAPE, threads=1, runs=1)
    (convolution,) = (layer for layer in layers if layer.operator == "QLinearConv")
    assert (convolution.stage, convolution.step, convolution.precision) == ("embed", 1, "int8")
    assert convolution.flops == 2 * SHAPE[2] * SHAPE[3] * 3 * 3 * 9
    assert {layer.precision for layer in layers if layer.operator.endswith("QuantizeLinear")} == {"fp32"}


def test_what_cannot_be_measured_is_refused(tiny_onnx: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.onnx does not exist"):
        onnx_layers(tiny_onnx.with_name("none.onnx"), SHAPE)
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\)"):
        onnx_layers(tiny_onnx, (1, 3, 31, 48))
    with pytest.raises(ValueError, match="runs is 0, expected at least 1"):
        onnx_layers(tiny_onnx, SHAPE, runs=0)


def _two_convolutions(path: Path, width: int) -> Path:
    """3 -> width -> 3 channels; nodes without names."""
    rng = np.random.default_rng(0)
    shapes = {"first": (width, 3, 3, 3), "second": (3, width, 3, 3)}
    weights = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["blurred", "first"], ["hidden"], pads=[1] * 4),
        helper.make_node("Conv", ["hidden", "second"], ["restored"], pads=[1] * 4),
    ]
    return _save(path, nodes, weights, "fp32")


def _quantized(path: Path) -> Path:
    """One convolution between two pairs of Q/DQ, the pattern that ONNX Runtime fuses."""
    weights = np.random.default_rng(0).integers(-127, 128, (3, 3, 3, 3), np.int8)
    constants = {"scale": np.float32(1 / 127).reshape(()), "zero": np.int8(0).reshape(()), "weights": weights}
    nodes = [
        helper.make_node("QuantizeLinear", ["blurred", "scale", "zero"], ["q0"]),
        helper.make_node("DequantizeLinear", ["q0", "scale", "zero"], ["input"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["kernel"]),
        helper.make_node("Conv", ["input", "kernel"], ["sums"], "step1/embed/Conv", pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["sums", "scale", "zero"], ["q1"]),
        helper.make_node("DequantizeLinear", ["q1", "scale", "zero"], ["restored"]),
    ]
    return _save(path, nodes, constants, "int8")


def _save(
    path: Path, nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[np.generic]], precision: str
) -> Path:
    axes = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        nodes,
        precision,
        [helper.make_tensor_value_info("blurred", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    spec = ModelSpec("test", precision, 1, multiple_of=1, receptive_field=1, pooling="none")
    for key, value in {SPEC_KEY: spec.to_json(), PRECISION_KEY: precision}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path
