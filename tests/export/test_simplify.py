import numpy as np
import onnxsim
import pytest
from onnx import ModelProto, helper, numpy_helper

from unblur.calibration.onnx_model import OnnxModel
from unblur.export.onnx_from_network import max_difference, simplify


def test_a_smaller_graph_that_computes_the_same_is_kept(fp32: OnnxModel) -> None:
    wasteful = OnnxModel.of(fp32.copied())
    wasteful.graph.node.insert(0, helper.make_node("Identity", ["blurred"], ["unused"], "dead"))
    result = simplify(wasteful)
    assert result.kept
    assert len(result.model.graph.node) < len(wasteful.graph.node)
    assert result.model.spec == fp32.spec
    assert "nodes" in result.reason
    assert max_difference(result.model, fp32) <= 1e-5


def test_simplifying_repeats_byte_for_byte(fp32: OnnxModel) -> None:
    assert simplify(fp32).model.data == simplify(fp32).model.data


def test_a_larger_graph_is_refused(fp32: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def inflate(proto: ModelProto) -> tuple[ModelProto, bool]:
        larger = OnnxModel.of(proto).copied()
        larger.graph.node.append(helper.make_node("Identity", ["blurred"], ["more"], "more"))
        return larger, True

    monkeypatch.setattr(onnxsim, "simplify", inflate)
    result = simplify(fp32)
    assert not result.kept
    assert result.model is fp32
    assert result.reason.startswith("onnxsim makes it larger")


def test_a_graph_that_computes_something_else_is_refused(fp32: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(proto: ModelProto) -> tuple[ModelProto, bool]:
        other = OnnxModel.of(proto).copied()
        bias = next(tensor for tensor in other.graph.initializer if tensor.name == "embed.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
        return other, True

    monkeypatch.setattr(onnxsim, "simplify", damage)
    result = simplify(fp32)
    assert result.model is fp32
    assert result.reason.startswith("onnxsim changes the image by")
