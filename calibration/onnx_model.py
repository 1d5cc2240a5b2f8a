"""A loaded ONNX file as one object, and its graph as a view; what is written has the same bytes every time."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper, version_converter
from onnx.checker import ValidationError
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Batch, NetworkValues, Padding
from unblur.runtime.model.onnx_runner import describe_onnx
from unblur.runtime.model.onnx_session import LOG_NOTHING, check_onnx_file
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Precision, SpecOverrides

PRODUCER = "unblur"
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
CPU = ("CPUExecutionProvider",)

_SHAPE = ".shape"
_MIN_OPSET = 13  # the first whose DequantizeLinear has a scale per channel


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
                f"{where} carries no model spec ({SPEC_KEY}); read it with read_onnx, which finds one by inspection"
            )
        spec = ModelSpec.from_json(metadata[SPEC_KEY], where=where)
        return cls(proto, spec, metadata.get(PRECISION_KEY, "unknown"), path)

    @property
    def graph(self) -> GraphProto:
        return self.proto.graph

    @property
    def input(self) -> str:
        """Name of the tensor that takes the image."""
        return self.spec.input_name or str(self.graph.input[0].name)

    @property
    def output(self) -> str:
        """Name of the tensor that gives the restored image."""
        return self.spec.output_name or str(self.graph.output[0].name)

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

    def network_values(self, batch: Batch) -> NDArray[np.floating]:
        """RGB in [0, 1], float32 (N, 3, H, W), as the graph takes it."""
        values = batch if self._conversion.is_identity else self._conversion.taken(batch)
        return values.astype(np.float16) if self._takes_half else values

    def restore(self, session: InferenceSession, batch: Batch) -> Batch:
        """What a session of this model makes of RGB in [0, 1]: RGB, `scale` times as large, not clipped."""
        (values,) = session.run([self.output], {self.input: self.network_values(batch)})
        restored = np.asarray(values, np.float32)
        return restored if self._conversion.is_identity else self._conversion.given(restored, batch)

    @cached_property
    def _conversion(self) -> NetworkValues:
        return NetworkValues(self.spec)

    @cached_property
    def _takes_half(self) -> bool:
        types = {value.name: value.type.tensor_type.elem_type for value in self.graph.input}
        return bool(types[self.input] == TensorProto.FLOAT16)

    def shapes(self, tensors: Collection[str], size_hw: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """The shapes that tensors have for one image of `size_hw`, padded, by running the graph.

        ONNX's own shape inference loses them behind a pixel unshuffle, whose sizes are quotients.
        """
        probed = self.copied()
        del probed.graph.output[:]
        for name in tensors:
            probed.graph.node.append(helper.make_node("Shape", [name], [name + _SHAPE]))
            probed.graph.output.append(helper.make_tensor_value_info(name + _SHAPE, TensorProto.INT64, None))
        blank = np.zeros((1, 3, *padding_of(self.spec, size_hw).padded_hw), np.float32)
        found = open_session(probed).run(None, {self.input: self.network_values(blank)})
        return {name: tuple(shape.tolist()) for name, shape in zip(tensors, found, strict=True)}


def read_onnx(path: Path, overrides: SpecOverrides = SpecOverrides()) -> OnnxModel:
    """Load an ONNX file with its weights; the spec of one that unblur did not write is found by inspection.

    overrides: what the caller states about a file from elsewhere. Raises BadInput if it is missing, damaged, too
    large or has an operator unknown here, SpecMismatch if it is not a network from an image to an image.
    """
    proto = read_proto(path)
    if any(entry.key == SPEC_KEY for entry in proto.metadata_props) and overrides == SpecOverrides():
        return OnnxModel.of(proto, where=str(path), path=path)
    spec, precision = describe_onnx(path, overrides)
    proto = editable(proto, path)
    kept = [output for output in proto.graph.output if spec.output_name in ("", output.name)]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    helper.set_model_props(proto, {SPEC_KEY: spec.to_json(), PRECISION_KEY: precision})
    return OnnxModel(proto, spec, precision, path, adapted=True)


def read_proto(path: Path) -> ModelProto:
    """Any ONNX file, with the weights it keeps in files beside it; BadInput in one line if it cannot be read."""
    check_onnx_file(path)
    try:
        proto = onnx.load(path)
    except (DecodeError, ValidationError, OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged or not an ONNX file: {' '.join(str(error).split())}") from error
    if not proto.graph.node:
        raise BadInput(f"{path} is empty or not an ONNX file: it holds no nodes")
    for tensor in proto.graph.initializer:
        expected = _byte_count(tensor)
        if expected is not None and len(tensor.raw_data) < expected:
            raise BadInput(
                f"{path}: the weight '{tensor.name}' has {len(tensor.raw_data)} bytes, expected {expected}; the "
                "file with its data is cut short, copy it again"
            )
    return proto


def _byte_count(tensor: TensorProto) -> int | None:
    """Of the raw data; None if a tensor has none, or several values in a byte."""
    if not tensor.HasField("raw_data") or tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return None
    item_bytes: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * item_bytes


def editable(proto: ModelProto, path: Path) -> ModelProto:
    """A graph from elsewhere as the editors here expect it: an opset that has Q/DQ per channel, no local functions,
    constants as initialisers, and a name of its own for every node.
    """
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), _MIN_OPSET)
    if opset < _MIN_OPSET:
        try:
            proto = version_converter.convert_version(proto, _MIN_OPSET)
        except (RuntimeError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise BadInput(
                f"{path} has opset {opset}, and cannot be converted to {_MIN_OPSET}: {reason}; export it again"
            ) from error
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    constants = [node for node in proto.graph.node if node.op_type == "Constant" and attribute_of(node, "value")]
    for node in constants:
        proto.graph.initializer.add().CopyFrom(attribute_of(node, "value"))
        proto.graph.initializer[-1].name = node.output[0]
        proto.graph.node.remove(node)
    counts = Counter(node.name for node in proto.graph.node)
    for index, node in enumerate(proto.graph.node):
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}_{index}:{node.output[0]}"
    return proto


def padding_of(spec: ModelSpec, size_hw: tuple[int, int]) -> Padding:
    """What an image of `size_hw` is padded to for a network."""
    if spec.fixed_hw is not None:
        return Padding(size_hw, spec.fixed_hw)
    return Padding.to_multiple(size_hw, spec.multiple_of)


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
    options.log_severity_level = LOG_NOTHING
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
        index: [producer[name] for name in _names_read(node) if name in producer]
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


def _names_read(node: NodeProto) -> Iterator[str]:
    """By the node, and by the subgraphs that it holds."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for part in _graphs(inner):
                yield from (name for each in part.node for name in each.input)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)
