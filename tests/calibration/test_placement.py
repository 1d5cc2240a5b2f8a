import pytest
from onnx import helper

from unblur.calibration.lint import lint
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import place, place_as
from unblur.calibration.quantize import quantize
from unblur.runtime.errors import CalibrationError
from unblur.runtime.model.calibration_table import TensorRange


def test_image_convolutions_and_gates_stay_float_in_every_step(fp32: OnnxModel) -> None:
    placement = place(fp32)
    assert placement.kept == {
        "embed.w": "reads the image",
        "gate.w": "attention gate",
        "tail.w": "writes the image",
    }
    assert [node.name for node in placement.quantized] == ["body_1", "body_2"]
    assert placement.activations == ("features1", "features2")


def test_features_that_are_gated_and_scaled_are_no_gate(fp32: OnnxModel) -> None:
    """`body` reaches the sigmoid too, but also the product that the gate scales."""
    assert "body.w" not in place(fp32).kept


def test_an_image_behind_a_pixel_shuffle_is_still_the_image(fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    model.graph.node.insert(0, helper.make_node("Identity", ["blurred"], ["moved"], "identity"))
    model.graph.node[1].input[0] = "moved"
    second_embed = next(node for node in model.graph.node if node.name == "embed_2")
    second_embed.input[0] = "features1"
    assert place(model).kept["embed.w"] == "reads the image"


def test_a_network_with_nothing_to_quantise_is_refused(fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    for node in model.graph.node:
        if node.name.startswith("body"):
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]
    with pytest.raises(CalibrationError, match="nothing to quantise: all 6 convolutions"):
        place(model)


def test_a_search_may_have_what_reads_and_writes_the_image(fp32: OnnxModel) -> None:
    placement = place(fp32, cautious=False)
    assert placement.kept == {"gate.w": "attention gate"}
    assert placement.layers == ("embed.w", "body.w", "tail.w")
    assert placement.images == {"blurred"}


def test_a_sigmoid_that_makes_the_image_is_no_gate(fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    model.graph.node[-1].CopyFrom(helper.make_node("Sigmoid", ["tail2"], ["restored"], "squash"))
    assert "tail.w" in place(model, cautious=False).layers


def test_a_convolution_of_averages_is_a_gate_without_a_sigmoid_too(fp32: OnnxModel) -> None:
    """As in NAFNet, which multiplies by the convolution itself."""
    model = OnnxModel.of(fp32.copied())
    for node in model.graph.node:
        if node.name.startswith("sigmoid"):
            node.op_type = "Identity"
    assert place(model, cautious=False).kept == {"gate.w": "attention gate"}


def test_gates_of_a_recurrent_cell_that_feed_a_tanh_too_become_int8(fp32: OnnxModel) -> None:
    """One convolution for all gates, as ConvLSTM has it: split, then sigmoids and a tanh."""
    model = OnnxModel.of(fp32.copied())
    for node in list(model.graph.node):
        if node.name.startswith("sigmoid"):
            node.op_type = "Tanh"
        elif node.name.startswith("pool"):
            node.op_type = "Identity"
    assert "gate.w" in place(model).layers


@pytest.mark.parametrize("pattern", ["body.w", "b*", "body_2"])
def test_layers_are_excluded_by_the_name_of_a_weight_or_node(fp32: OnnxModel, pattern: str) -> None:
    placement = place(fp32, [pattern], cautious=False)
    assert placement.layers == ("embed.w", "tail.w")
    assert placement.excluded == ("body.w",)


def test_excluding_what_is_kept_anyway_changes_nothing(fp32: OnnxModel) -> None:
    assert place(fp32, ["gate*"]).excluded == ()


def test_a_pattern_that_fits_nothing_lists_the_names(fp32: OnnxModel) -> None:
    message = r"no convolution is called 'boddy\*'; the model has embed.w, body.w, gate.w, tail.w$"
    with pytest.raises(CalibrationError, match=message):
        place(fp32, ["boddy*"])


def test_a_choice_leaves_the_rest_out(fp32: OnnxModel) -> None:
    chosen = place(fp32, cautious=False).only({"body.w"})
    assert chosen.layers == ("body.w",)
    assert chosen.excluded == ("embed.w", "tail.w")
    assert chosen.images == frozenset()
    again = place_as(fp32, chosen.kept, chosen.excluded)
    assert (again.layers, again.excluded, again.images) == (chosen.layers, chosen.excluded, chosen.images)


def test_a_model_without_convolutions_is_refused(fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]
    with pytest.raises(CalibrationError, match="the model has no convolutions with constant weights"):
        place(model)


def _joined(fp32: OnnxModel) -> OnnxModel:
    """As fp32, but the second step embeds the image and its estimate, and adds both before the activation."""
    model = OnnxModel.of(fp32.copied())
    relu = next(node for node in model.graph.node if node.name == "relu_2")
    relu.input[0] = "joined"
    add = helper.make_node("Add", ["embed1", "embed2"], ["joined"], "join")
    model.graph.node.insert(list(model.graph.node).index(relu), add)
    return model


def test_where_two_convolutions_meet_the_earlier_one_is_rounded(fp32: OnnxModel) -> None:
    model = _joined(fp32)
    placement = place(model, cautious=False)
    assert [join.tensor for join in placement.joins] == ["embed1"]
    assert "embed1" in placement.activations
    int8 = quantize(model, placement, dict.fromkeys(placement.activations, TensorRange(-2, 2, 2)))
    (join,) = (node for node in int8.graph.node if node.name == "join")
    assert [int8.view.producer[name].op_type for name in join.input] == ["DequantizeLinear", "Conv"]
    assert {finding.rule for finding in lint(int8.proto) if finding.severity == "warning"} == {"channels"}


def test_a_join_is_rounded_only_if_both_convolutions_are_int8(fp32: OnnxModel) -> None:
    placement = place(_joined(fp32), cautious=False)
    assert placement.only({"body.w"}).joins == ()
    assert placement.only({"embed.w", "body.w"}).joins == placement.joins
    assert place(_joined(fp32)).joins == ()  # both read the image


def test_a_table_made_before_joins_leaves_them_float(fp32: OnnxModel) -> None:
    model = _joined(fp32)
    placement = place(model, cautious=False)
    known = {name: TensorRange(-2, 2, 2) for name in placement.activations if name != "embed1"}
    assert "embed1_QuantizeLinear" not in {node.name for node in quantize(model, placement, known).graph.node}
