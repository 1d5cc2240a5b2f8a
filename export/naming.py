"""Names that say where in the network a node is: "step2/body.0.first/Conv".

Whoever reads a profile, an engine's layers or a calibration table then needs no graph to tell the module and the
step of the recursion. A tensor has the name of the node that writes it; `unblur.runtime.profile.layers` reads them.
"""

import ast
from collections import Counter
from typing import NamedTuple

from onnx import GraphProto, NodeProto

from unblur.calibration.graph_view import WEIGHTED
from unblur.train.networks import DeblurringNetwork

_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note on a node: its modules, outermost first, and itself
_FUSED = frozenset({"Add", "Clip", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"})
"""What ONNX Runtime and TensorRT compute together with the convolution that it follows."""


class _Place(NamedTuple):
    """stage: path of a module. step: from 1; None outside of a recursion."""

    stage: str
    step: int | None


def name_layers(graph: GraphProto, network: DeblurringNetwork) -> None:
    """Rename the nodes of `graph`, as torch exported it from `network`, and the tensors between them.

    Inputs, outputs and weights keep their names. Names are unique: the second Add of a module is "Add_2".
    """
    kept = {value.name for value in graph.output}
    counts: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node, place in zip(graph.node, _places(graph, network), strict=True):
        step = f"step{place.step}" if place.step else ""
        name = "/".join(part for part in (step, place.stage, node.op_type) if part)
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        for index, output in enumerate(node.output):
            if output not in kept:
                renamed[output] = f"{node.name}:{index}" if index else node.name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _places(graph: GraphProto, network: DeblurringNetwork) -> list[_Place]:
    """The place of every node: of its weights or its module, else of what it follows, else of what it feeds."""
    weights = {tensor.name for tensor in graph.initializer}
    uses: Counter[str] = Counter()
    places: dict[int, _Place] = {}
    writer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if node.op_type in WEIGHTED and node.input[1] in weights:
            module = node.input[1].rpartition(".")[0]
            uses[module] += 1
            places[index] = _Place(module, network.step_of(module, uses[module]))
        else:
            sources = [writer[name] for name in node.input if writer.get(name) in places]
            place = _without_weights(node, places[max(sources)] if sources else None)
            if place is not None:
                places[index] = place
        writer.update(dict.fromkeys(node.output, index))
    return _with_beginning(graph, places)


def _without_weights(node: NodeProto, followed: _Place | None) -> _Place | None:
    """The place of a node by its module. followed: the place of the latest node that it reads from."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    module = scopes[-2] if len(scopes) > 1 else ""
    if followed is None:
        return _Place(module, None) if module else None
    return _Place(module, followed.step) if module and node.op_type not in _FUSED else followed


def _with_beginning(graph: GraphProto, places: dict[int, _Place]) -> list[_Place]:
    """Give what comes before all modules, as pyramids and their shapes do, the place of the first that reads it."""
    reader: dict[str, _Place] = {}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if index not in places:
            places[index] = next((reader[name] for name in node.output if name in reader), _Place("", None))
        reader.update(dict.fromkeys(node.input, places[index]))
    return [places[index] for index in range(len(graph.node))]
