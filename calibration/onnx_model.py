"""A loaded ONNX file as one object, and its graph as a view; what is written has the same bytes every time."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import NetworkValues, Padding
from unblur.runtime.model.onnx_runner import describe_onnx
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Precision, SpecOverrides

PRODUCER = "unblur"
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
CPU = ("CPUExecutionProvider",)

_LOG_ERRORS_ONLY = 3
_SHAPE = ".shape"


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX model in memory, passed from step to step; who edits the graph edits a copy (`copied`).

    precision: "fp32", "fp16" or "int8"; "unknown" if the file does not say. path: of the file it was read from.
    adapted: it is not what the file holds: a spec was added, other outputs removed.
    """

    proto: ModelProto
    spec: ModelSpec
    precision: str
    path: Path | None = None
    adapted: bool = False

    @classmethod
    def of(cls, proto: ModelProto, *, where: str = "the ONNX model", path: Path | None = None) -> "OnnxModel":
        """A graph with the spec in its metadata; SpecMismatch, naming `where`, if there is none."""
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        if SPEC_KEY not in metadata:
            raise SpecMismatch(
                f"{where} carries no model spec ({SPEC_KEY}); export the network with `unblur export`, "
                "a foreign ONNX does not say how it wants to be fed"
            )
        spec = ModelSpec.from_json(metadata[SPEC_KEY], where=where)
        return cls(proto, spec, metadata.get(PRECISION_KEY, "unknown"), path)

    @property
    def graph(self) -> GraphProto:
        return self.proto.graph

    @property
    def input(self) -> str:
        """Name of the tensor that takes the image."""
        return str(self.graph.input[0].name)

    @property
    def output(self) -> str:
        """Name of the tensor that gives the restored image."""
        return str(self.graph.output[0].name)

    @cached_property
    def view(self) -> "GraphView":
        return GraphView(self.proto)

    @property
    def data(self) -> bytes:
        """The contents of the file; equal models give equal bytes."""
        return onnx_bytes(self.proto)

    @cached_property
    def sha256(self) -> str:
        """Of `data`."""
        return hashlib.sha256(self.data).hexdigest()

    def copied(self) -> ModelProto:
        """A copy of the graph, to be edited."""
        copy = ModelProto()
        copy.CopyFrom(self.proto)
        return copy

    def session(self, *, optimized: bool = True) -> InferenceSession:
        """See `open_session`."""
        return open_session(self.proto, optimized=optimized)

    def shapes(self, tensors: Collection[str], size_hw: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """The shapes that tensors have for one image of `size_hw`, padded, by running the graph.

        ONNX's own shape inference loses them behind a pixel unshuffle, whose sizes are quotients.
        """
        probed = self.copied()
        del probed.graph.output[:]
        for name in tensors:
            probed.graph.node.append(helper.make_node("Shape", [name], [name + _SHAPE]))
            probed.graph.output.append(helper.make_tensor_value_info(name + _SHAPE, TensorProto.INT64, None))
        padded_hw = Padding.to_multiple(size_hw, self.spec.multiple_of).padded_hw
        image = NetworkValues(self.spec).taken(np.zeros((1, 3, *padded_hw), np.float32))
        found = open_session(probed).run(None, {self.input: image})
        return {name: tuple(shape.tolist()) for name, shape in zip(tensors, found, strict=True)}


def read_onnx(path: Path, overrides: SpecOverrides = SpecOverrides()) -> OnnxModel:
    """Load an ONNX file, weights included; into one from elsewhere the spec is written that inspection finds.

    Raises BadInput if it is missing, empty or not ONNX, SpecMismatch if it is not a network from image to image.
    """
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected an .onnx file")
    proto = ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise BadInput(f"{path} is damaged or not an ONNX file: {error}") from error
    if not proto.graph.node:
        raise BadInput(f"{path} is empty or not an ONNX file: it holds no nodes")
    if any(entry.key == SPEC_KEY for entry in proto.metadata_props) and overrides == SpecOverrides():
        return OnnxModel.of(proto, where=str(path), path=path)
    spec, precision = describe_onnx(path, overrides)
    load_external_data_for_model(proto, str(path.parent))
    kept = [output for output in proto.graph.output if spec.output_name in ("", output.name)]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    helper.set_model_props(proto, {SPEC_KEY: spec.to_json(), PRECISION_KEY: precision})
    return OnnxModel(proto, spec, precision, path, adapted=True)


def check_onnx_name(path: Path) -> None:
    """BadInput unless a model written to `path` will be recognised by its suffix."""
    if path.suffix != ".onnx":
        raise BadInput(f"cannot write a model to {path}; its name ends in .onnx")


def write_onnx(path: Path, model: OnnxModel) -> None:
    """Write `model`, whole or not at all; equal models give equal bytes."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(model.data)


def onnx_bytes(proto: ModelProto) -> bytes:
    """The file contents of a graph; equal graphs give equal bytes."""
    contents: bytes = proto.SerializeToString(deterministic=True)
    return contents


def open_session(proto: ModelProto, *, optimized: bool = True, providers: Sequence[str] = CPU) -> InferenceSession:
    """ONNX Runtime for a graph in memory.

    optimized: False evaluates Q/DQ in float, which is what an engine computes, while a CPU's fused 8-bit products
    saturate. providers: the first that has an operator runs it.
    """
    options = SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    if not optimized:
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    return InferenceSession(onnx_bytes(proto), options, providers=list(providers))


def described(proto: ModelProto, spec: ModelSpec, precision: Precision) -> OnnxModel:
    """Replace the metadata and the producer of `proto`, in place, by ours."""
    del proto.metadata_props[:]
    for key, value in sorted({SPEC_KEY: spec.to_json(), PRECISION_KEY: precision}.items()):
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = PRODUCER
    for field in ("producer_version", "domain", "model_version", "doc_string"):
        proto.ClearField(field)
    return OnnxModel(proto, spec, precision)


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


class GraphView:
    """The nodes of a graph, those of subgraphs and local functions too, and how they are connected.

    ONNX demands that names are unique over a graph and its subgraphs, so one look-up serves all.
    """

    def __init__(self, proto: ModelProto) -> None:
        graphs = list(_graphs((inliner.inline_local_functions(proto) if proto.functions else proto).graph))
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


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)
