import pytest
from onnx import ModelProto, helper

from unblur.calibration.placement import place
from unblur.runtime.errors import CalibrationError


def test_image_convolutions_and_gates_stay_float_in_every_step(fp32: ModelProto) -> None:
    placement = place(fp32)
    assert placement.kept == {
        "embed.w": "reads the image",
        "gate.w": "attention gate",
        "tail.w": "writes the image",
    }
    assert [node.name for node in placement.quantized] == ["body_1", "body_2"]
    assert placement.activations == ("features1", "features2")


def test_features_that_are_gated_and_scaled_are_no_gate(fp32: ModelProto) -> None:
    """`body` reaches the sigmoid too, but also the product that the gate scales."""
    assert "body.w" not in place(fp32).kept


def test_an_image_behind_a_pixel_shuffle_is_still_the_image(fp32: ModelProto) -> None:
    model = ModelProto()
    model.CopyFrom(fp32)
    model.graph.node.insert(0, helper.make_node("Identity", ["blurred"], ["moved"], "identity"))
    model.graph.node[1].input[0] = "moved"
    second_embed = next(node for node in model.graph.node if node.name == "embed_2")
    second_embed.input[0] = "features1"
    assert place(model).kept["embed.w"] == "reads the image"


def test_a_network_with_nothing_to_quantise_is_refused(fp32: ModelProto) -> None:
    model = ModelProto()
    model.CopyFrom(fp32)
    for node in model.graph.node:
        if node.name.startswith("body"):
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]
    with pytest.raises(CalibrationError, match="nothing to quantise: all 6 convolutions"):
        place(model)
