"""Look-ups in an ONNX graph that may come from anywhere."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class GraphView:
    """The nodes of a model, those of subgraphs and local functions too, and how they hang together.

    ONNX demands that names are unique over a graph and its subgraphs, so one look-up serves all.
    """

    def __init__(self, model: ModelProto) -> None:
        graphs = list(_graphs((inliner.inline_local_functions(model) if model.functions else model).graph))
        self.nodes = [node for graph in graphs for node in graph.node]
        self._initializers = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}

    @cached_property
    def producer(self) -> dict[str, NodeProto]:
        """Tensor -> the node that writes it."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """Tensor -> the nodes that read it."""
        consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        return consumers

    def tensor(self, node: NodeProto, position: int) -> TensorProto | None:
        """The constant that `node` reads at a position; None if it is computed, or not there."""
        name = input_name(node, position)
        source = self.producer.get(name)
        if source is not None and source.op_type == "Constant":
            return next((attribute.t for attribute in source.attribute if attribute.name == "value"), None)
        return self._initializers.get(name)

    def constant(self, node: NodeProto, position: int) -> NDArray[np.generic] | None:
        """The values of `tensor`."""
        tensor = self.tensor(node, position)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def source(self, node: NodeProto, position: int) -> NodeProto | None:
        """The node that computes what `node` reads at a position."""
        return self.producer.get(input_name(node, position))

    def readers(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that read the first output of `node`."""
        return self.consumers.get(node.output[0], [])


def input_name(node: NodeProto, position: int) -> str:
    """Name of an input; "" if the node has none there."""
    return node.input[position] if position < len(node.input) else ""


def attribute_of(node: NodeProto, name: str) -> object:
    """The value of an attribute; None if it is not set."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), None)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)
