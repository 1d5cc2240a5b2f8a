"""What a network computes and moves at one frame size, read off its graph: nothing is run at that size."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import onnxsim
from onnx import ModelProto, NodeProto, ValueInfoProto

from unblur.calibration.graph_view import GraphView, attribute_of
from unblur.calibration.onnx_file import spec_of
from unblur.runtime.errors import SpecMismatch
from unblur.runtime.frames import Padding
from unblur.runtime.profile.layers import stage_and_step
from unblur.runtime.spec import ModelSpec

Kind = Literal[
    "convolution",
    "grouped",
    "transposed",
    "product",
    "elementwise",
    "normalisation",
    "reduction",
    "pooling",
    "resize",
    "movement",
]
"""What takes its time in a way of its own. "grouped": a convolution in groups, depthwise included. "reduction":
across channels; over pixels it is "pooling". "movement": concatenation, padding and all else that copies."""

_FREE = frozenset(
    {"Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Dropout", "Flatten", "Identity"}
    | {"QuantizeLinear", "Reshape", "Squeeze", "Unsqueeze"}
)
"""Done by looking at the same memory in another way, or by the kernels beside them."""

KINDS: Mapping[str, Kind] = {
    "Conv": "convolution",
    "ConvTranspose": "transposed",
    "Gemm": "product",
    "MatMul": "product",
    "BatchNormalization": "normalisation",
    "GroupNormalization": "normalisation",
    "InstanceNormalization": "normalisation",
    "LayerNormalization": "normalisation",
    "Softmax": "normalisation",
    "ReduceMax": "reduction",
    "ReduceMean": "reduction",
    "ReduceMin": "reduction",
    "ReduceSum": "reduction",
    "AveragePool": "pooling",
    "GlobalAveragePool": "pooling",
    "MaxPool": "pooling",
    "Resize": "resize",
    "Concat": "movement",
    "DepthToSpace": "movement",
    "Expand": "movement",
    "Gather": "movement",
    "Pad": "movement",
    "Slice": "movement",
    "SpaceToDepth": "movement",
    "Split": "movement",
    "Tile": "movement",
    "Transpose": "movement",
}
"""By operator; what is not in it computes each element from those at its place."""


@dataclass(frozen=True)
class Operation:
    """One node that takes time.

    reads, writes: the activations, by name. weights: elements of its constants. flops: as in `Layer`. lanes: how
    many channels it sums over and makes, in each group; None where nothing is multiplied and summed.
    """

    name: str
    operator: str
    kind: Kind
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: int
    flops: int
    lanes: tuple[int, int] | None = None

    @property
    def stage(self) -> str:
        """Path of its module; the node's name if the graph does not tell."""
        return stage_and_step(self.name)[0] or self.name

    @property
    def step(self) -> int | None:
        """Its recursion step or scale, from 1; None outside of them."""
        return stage_and_step(self.name)[1]


@dataclass(frozen=True)
class Network:
    """A network at one size. elements: of every activation, by name. weights: of all constants, each once."""

    spec: ModelSpec
    size_hw: tuple[int, int]
    operations: tuple[Operation, ...]
    elements: Mapping[str, int]
    weights: int

    @property
    def flops(self) -> int:
        return sum(operation.flops for operation in self.operations)

    def peak_elements(self) -> int:
        """The most elements of activations that have to be kept at once, if each is freed after its last reader."""
        last = {name: index for index, operation in enumerate(self.operations) for name in operation.reads}
        written = {name for operation in self.operations for name in operation.writes}
        live = peak = sum(self.elements[name] for name in last.keys() - written)
        for index, operation in enumerate(self.operations):
            live += sum(self.elements[name] for name in operation.writes)
            peak = max(peak, live)
            live -= sum(self.elements[name] for name in set(operation.reads) if last[name] == index)
        return peak


def network_at(model: ModelProto, size_hw: tuple[int, int]) -> Network:
    """Read off what one frame of `size_hw`, padded as the spec says, costs.

    onnxsim folds what only depends on the size, behind which ONNX's shape inference is lost. Raises SpecMismatch if
    a shape stays unknown.
    """
    spec = spec_of(model)
    padded_hw = Padding.to_multiple(size_hw, spec.multiple_of).padded_hw
    image = model.graph.input[0].name
    shape = {image: [1, 3, *padded_hw]}
    fixed, _ = onnxsim.simplify(model, overwrite_input_shapes=shape, perform_optimization=False)
    graph = _SizedGraph(fixed)
    operations = tuple(graph.operation(node) for node in fixed.graph.node if node.op_type not in _FREE)
    used = {name for operation in operations for name in (*operation.reads, *operation.writes)}
    return Network(
        spec=spec,
        size_hw=size_hw,
        operations=operations,
        elements={name: prod(graph.shape(name)) for name in used},
        weights=sum(prod(tensor.dims) for tensor in fixed.graph.initializer),
    )


class _SizedGraph:
    """Look-ups in a graph whose shapes are all numbers."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._view = GraphView(model)
        self._shapes = {value.name: _dims(value) for value in (*graph.input, *graph.output, *graph.value_info)}
        self._weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}

    def shape(self, name: str) -> tuple[int, ...]:
        """SpecMismatch if it is not known."""
        if name in self._weights:
            return self._weights[name]
        shape = self._shapes.get(name)
        if shape is None or 0 in shape:
            raise SpecMismatch(f"the size of '{name}' cannot be told from the graph; export the model again")
        return shape

    def operation(self, node: NodeProto) -> Operation:
        reads = [name for name in node.input if name and name not in self._weights]
        weights = [self.shape(name) for name in node.input if name in self._weights]
        return Operation(
            name=node.name or node.output[0],
            operator=node.op_type,
            kind=self._kind(node),
            reads=tuple(dict.fromkeys(map(self._memory_of, reads))),
            writes=tuple(name for name in node.output if name),
            weights=sum(map(prod, weights)),
            flops=self._flops(node),
            lanes=self._lanes(node),
        )

    def _memory_of(self, name: str) -> str:
        """The tensor whose memory `name` is another view of."""
        source = self._view.producer.get(name)
        while source is not None and source.op_type in _FREE and source.input:
            name = source.input[0]
            source = self._view.producer.get(name)
        return name

    def _kind(self, node: NodeProto) -> Kind:
        kind = KINDS.get(node.op_type, "elementwise")
        if kind == "convolution" and _groups(node) > 1:
            return "grouped"
        if kind == "reduction" and self.shape(node.output[0])[-2:] != self.shape(node.input[0])[-2:]:
            return "pooling"
        return kind

    def _flops(self, node: NodeProto) -> int:
        """As `Layer` counts them."""
        written = prod(self.shape(node.output[0]))
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return max([written, *(prod(self.shape(name)) for name in node.input[:1])])
        first, second = self.shape(node.input[0]), self.shape(node.input[1])
        if node.op_type == "Conv":
            return 2 * written * prod(second[1:])
        if node.op_type == "ConvTranspose":
            return 2 * prod(first) * prod(second[1:])
        return 2 * written * first[0 if attribute_of(node, "transA") else -1]

    def _lanes(self, node: NodeProto) -> tuple[int, int] | None:
        if node.op_type in ("Gemm", "MatMul"):
            return self.shape(node.input[0])[-1], self.shape(node.output[0])[-1]
        if node.op_type not in ("Conv", "ConvTranspose"):
            return None
        groups = _groups(node)
        return self.shape(node.input[0])[1] // groups, self.shape(node.output[0])[1] // groups


def _groups(node: NodeProto) -> int:
    groups = attribute_of(node, "group")
    return groups if isinstance(groups, int) else 1


def _dims(value: ValueInfoProto) -> tuple[int, ...]:
    """Zeros where they are not known."""
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
