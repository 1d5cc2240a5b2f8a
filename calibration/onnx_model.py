"""A loaded ONNX file as one object; what is written has the same bytes every time."""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper
from onnx.checker import ValidationError
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from unblur.calibration.foreign_graph import editable, in_rgb
from unblur.calibration.graph_view import GraphView, keep_only
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Batch, NetworkValues, Padding
from unblur.runtime.model.onnx_runner import describe_onnx
from unblur.runtime.model.onnx_session import LOG_NOTHING, ORT_ERRORS, check_onnx_file
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Precision, SpecOverrides

PRODUCER = "unblur"
CPU = ("CPUExecutionProvider",)

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
        if not tensors:
            return {}
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
    keep_only(proto.graph, [output.name for output in kept])
    proto.graph.output.extend(kept)
    if spec.colour == "grey":
        in_rgb(proto)
        spec = replace(spec, colour="RGB")
        _check_batch(proto, spec, path)
    helper.set_model_props(proto, {SPEC_KEY: spec.to_json(), PRECISION_KEY: precision})
    return OnnxModel(proto, spec, precision, path, adapted=True)


def _check_batch(proto: ModelProto, spec: ModelSpec, path: Path) -> None:
    """SpecMismatch if the planes of an image cannot be a batch."""
    try:
        OnnxModel(proto, spec, "").shapes([proto.graph.output[0].name], (32, 32))
    except ORT_ERRORS as error:
        raise SpecMismatch(
            f"{path} takes one grey image at a time; export it again with a free batch (dynamic_axes)"
        ) from error


def read_proto(path: Path) -> ModelProto:
    """Any ONNX file, with the weights it keeps in files beside it; BadInput in one line if it cannot be read."""
    check_onnx_file(path)
    try:
        proto = onnx.load(path)
    except (DecodeError, ValidationError, OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged or not an ONNX file: {' '.join(str(error).split())}") from error
    if not proto.graph.node:
        raise BadInput(f"{path} is empty or not an ONNX file: it holds no nodes")
    for node in proto.graph.node:
        # protobuf gives bytes for what is not UTF-8
        if not all(
            isinstance(text, str) for text in (node.op_type, node.domain, node.name, *node.input, *node.output)
        ):
            raise BadInput(f"{path} is damaged: a name in it is not UTF-8")
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
