"""Our ONNX files: what is read is checked to be ours, what is written has the same bytes every time."""

from collections.abc import Iterator
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Precision

PRODUCER = "unblur"


def read_onnx(path: Path) -> ModelProto:
    """Parse an ONNX file that unblur wrote, weights included.

    Raises BadInput if it is missing, empty or no ONNX, SpecMismatch if it does not carry a model spec.
    """
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected an .onnx file from `unblur export`")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise BadInput(f"{path} is damaged or not an ONNX file: {error}") from error
    if not model.graph.node:
        raise BadInput(f"{path} is empty or not an ONNX file: it holds no nodes")
    spec_of(model, where=str(path))
    return model


def check_onnx_name(path: Path) -> None:
    """BadInput unless a model written to `path` will be recognised by its suffix."""
    if path.suffix != ".onnx":
        raise BadInput(f"cannot write a model to {path}; its name ends in .onnx")


def write_onnx(path: Path, model: ModelProto) -> None:
    """Write `model`, whole or not at all; equal models give equal bytes."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(onnx_bytes(model))


def onnx_bytes(model: ModelProto) -> bytes:
    """The file contents of `model`; equal models give equal bytes."""
    contents: bytes = model.SerializeToString(deterministic=True)
    return contents


def spec_of(model: ModelProto, *, where: str = "the ONNX model") -> ModelSpec:
    """The model spec in the metadata; SpecMismatch, naming `where`, if there is none."""
    text = _metadata(model).get(SPEC_KEY)
    if text is None:
        raise SpecMismatch(
            f"{where} carries no model spec ({SPEC_KEY}); export the network with `unblur export`, "
            "a foreign ONNX does not say how it wants to be fed"
        )
    return ModelSpec.from_json(text, where=where)


def precision_of(model: ModelProto) -> str:
    """What `unblur.precision` says: "fp32", "fp16" or "int8"; "unknown" if it is absent."""
    return _metadata(model).get(PRECISION_KEY, "unknown")


def describe(model: ModelProto, spec: ModelSpec, precision: Precision) -> None:
    """Replace the metadata and the producer of `model` by ours."""
    del model.metadata_props[:]
    for key, value in sorted({SPEC_KEY: spec.to_json(), PRECISION_KEY: precision}.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name = PRODUCER
    for field in ("producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(field)


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


def sort_nodes(graph: GraphProto) -> None:
    """Put every node after the nodes it reads from, as ONNX demands; editors append their new nodes at the end."""
    producer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    reads = {
        index: [producer[name] for name in node.input if name in producer] for index, node in enumerate(graph.node)
    }
    nodes = [graph.node[index] for index in TopologicalSorter(reads).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _metadata(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


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
