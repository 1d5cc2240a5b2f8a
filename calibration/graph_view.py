"""An ONNX graph as a view of nodes and how they are connected, and edits that change nothing that is computed."""

from collections.abc import Collection, Iterator
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def strip_provenance(message: Message) -> None:
    """Remove notes of the tools that built the graph: stack traces with file paths, documentation strings, inferred
    shapes.

    None of them changes what is computed, and with them one network would give other bytes on another machine.
    """
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string", "value_info"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                strip_provenance(child)


def keep_only(graph: GraphProto, tensors: Collection[str]) -> None:
    """Remove the outputs, and every node and weight that does not serve to compute `tensors`."""
    needed, nodes = set(tensors), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(names_read(node))
            nodes.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.output[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(weights)


def sort_nodes(graph: GraphProto) -> None:
    """Put every node after the nodes it reads from, as ONNX demands; editors append their new nodes at the end."""
    producer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    reads = {
        index: [producer[name] for name in names_read(node) if name in producer]
        for index, node in enumerate(graph.node)
    }
    nodes = [graph.node[index] for index in TopologicalSorter(reads).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


class GraphView:
    """The nodes of a graph, those of subgraphs and local functions too, and how they are connected.

    ONNX demands that names are unique over a graph and its subgraphs, so one look-up serves all.
    """

    def __init__(self, proto: ModelProto) -> None:
        graphs = list(graphs_of((inliner.inline_local_functions(proto) if proto.functions else proto).graph))
        self.nodes = [node for graph in graphs for node in graph.node]
        self.inputs = frozenset(value.name for value in graphs[0].input)
        self.outputs = frozenset(value.name for value in graphs[0].output)
        self.initializers = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}

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

    @property
    def tensors(self) -> frozenset[str]:
        """The inputs, and whatever a node writes."""
        return self.inputs.union(self.producer)

    def tensor(self, node: NodeProto, position: int) -> TensorProto | None:
        """The constant that `node` reads at a position; None if it is computed, or not there."""
        name = input_name(node, position)
        source = self.producer.get(name)
        if source is not None and source.op_type == "Constant":
            return next((attribute.t for attribute in source.attribute if attribute.name == "value"), None)
        return self.initializers.get(name)

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


def names_read(node: NodeProto) -> Iterator[str]:
    """The tensors read by a node, and by the subgraphs that it holds."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for part in graphs_of(inner):
                yield from (name for each in part.node for name in each.input)


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from graphs_of(inner)
