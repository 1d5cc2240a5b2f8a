"""Names of the exported nodes, on real exports: what torch notes of a node is not ours to imitate."""

from unblur.calibration.graph_view import WEIGHTED
from unblur.calibration.onnx_model import OnnxModel
from unblur.export.onnx_from_network import simplify
from unblur.runtime.profile.layers import stage_and_step
from unblur.train.networks import build_network


def weighted(model: OnnxModel) -> dict[str, str]:
    """Node -> weight, of the nodes that have weights."""
    return {node.name: node.input[1] for node in model.graph.node if node.op_type in WEIGHTED}


def test_every_node_and_tensor_has_a_name_of_its_own(fp32: OnnxModel) -> None:
    names = [node.name for node in fp32.graph.node]
    assert len(set(names)) == len(names)
    assert all(stage_and_step(name)[0] for name in names)
    for node in fp32.graph.node[:-1]:
        assert list(node.output) == [node.name]
    assert fp32.graph.node[-1].output == ["restored"]


def test_a_weight_tells_the_module_and_how_often_it_was_used_the_step(fp32: OnnxModel) -> None:
    found = [stage_and_step(name) for name in weighted(fp32)]
    modules = ["head", "body.0.first", "body.0.second", "channel.squeeze", "channel.excite", "spatial.conv"]
    for stage in (*modules, "reconstruct"):
        assert [step for other, step in found if other == stage] == [1, 2]
    assert ("embed", None) in found
    assert len(found) == 1 + 2 * 7
    for name, weight in weighted(fp32).items():
        assert weight == f"{stage_and_step(name)[0]}.weight"


def test_what_follows_a_convolution_counts_to_it_and_all_else_to_its_module(fp32: OnnxModel) -> None:
    names = {node.name for node in fp32.graph.node}
    assert {"step1/head/Relu", "step2/body.0.second/Add", "step1/channel/Mul", "step2/spatial/Concat"} <= names
    assert {"embed/Reshape", "step2/reconstruct/DepthToSpace"} <= names  # the first and the last of the graph


def test_one_step_is_called_as_the_first_of_many(exports: dict[int, OnnxModel]) -> None:
    assert set(weighted(exports[1])) == {name for name in weighted(exports[2]) if not name.startswith("step2/")}


def test_names_outlive_onnxsim(fp32: OnnxModel) -> None:
    assert weighted(simplify(fp32).model) == weighted(fp32)


def test_the_feedback_module_has_steps_and_no_hidden_state_in_the_first() -> None:
    network = build_network("deblurgan-feedback", width=8, blocks=1)
    assert [network.step_of("feedback.from_input", 1), network.step_of("feedback.from_hidden", 1)] == [1, 2]
    assert network.step_of("decoder.0", 1) is None
