"""Which convolutions become INT8.

Two kinds are costly by published results and by NVIDIA's advice for low-level vision, and stay float until a search
has measured what they cost here (`calibration/search.py`):

- the first convolution reads the image, whose 8-bit steps are rounded a second time;
- the last one writes the residual of the image, where an error is seen as it is.

The convolutions of an attention gate stay float anyway: they scale everything after them and cost next to nothing.
The *global* image residual, an Add, is never quantised: only convolutions read the image in INT8. Where two
convolutions meet in any other Add, one of them is rounded to INT8 (a *join*): only then does TensorRT compute the
Add within the other. All of it is recognised by structure, not by name, so the rules hold for every network. They
are decided per weight tensor, a *layer* from here on: the steps of a recursion share their weights, and one that is
INT8 in one step and float in another is stored twice.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import NodeProto, TensorProto

from unblur.calibration.graph_view import GraphView
from unblur.calibration.onnx_model import OnnxModel, padding_of
from unblur.runtime.errors import CalibrationError

CONVOLUTIONS = ("Conv", "ConvTranspose")
_MOVES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Resize", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "AveragePool", "MaxPool"}
    | {"DequantizeLinear", "QuantizeLinear"}
)
_TO_IMAGE = _MOVES | {"Add", "Sub", "Clip", "Tanh", "Sigmoid"}
_TO_GATE = _MOVES | {"Add", "GlobalAveragePool", "LeakyRelu", "PRelu", "ReduceMean", "Relu", *CONVOLUTIONS}
_GATES = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
_FRAME_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
_SHOWN_NAMES = 8
_MACS_HW = (256, 256)


@dataclass(frozen=True)
class Join:
    """tensor: the output of a convolution that an Add reads in INT8. layers: the two that the Add joins."""

    tensor: str
    layers: frozenset[str]


@dataclass(frozen=True)
class Placement:
    """quantized: the nodes that get Q/DQ, in graph order. kept: layer -> why it stays float. excluded: layers that
    are float because the user or a search said so. images: those of the activations that are the image itself.
    joins: the outputs that get Q/DQ as well.
    """

    quantized: tuple[NodeProto, ...]
    kept: Mapping[str, str]
    excluded: tuple[str, ...] = ()
    images: frozenset[str] = frozenset()
    joins: tuple[Join, ...] = ()

    @property
    def activations(self) -> tuple[str, ...]:
        """The tensors whose ranges are needed, each once: what quantised convolutions read, and the joins."""
        inputs = (node.input[0] for node in self.quantized)
        return tuple(dict.fromkeys((*inputs, *(join.tensor for join in self.joins))))

    @property
    def layers(self) -> tuple[str, ...]:
        """The weights that become INT8, each once."""
        return tuple(dict.fromkeys(node.input[1] for node in self.quantized))

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """Layer -> the tensors it is applied to, in graph order: one for each step of a recursion."""
        reads: dict[str, tuple[str, ...]] = {}
        for node in self.quantized:
            reads[node.input[1]] = (*reads.get(node.input[1], ()), node.input[0])
        return reads

    def only(self, layers: Collection[str]) -> "Placement":
        """With these layers in INT8 alone; the others of this placement are excluded."""
        quantized = tuple(node for node in self.quantized if node.input[1] in layers)
        left_out = tuple(layer for layer in self.layers if layer not in layers)
        images = self.images.intersection(node.input[0] for node in quantized)
        joins = tuple(join for join in self.joins if join.layers.issubset(layers))
        return Placement(quantized, self.kept, self.excluded + left_out, images, joins)


def place(model: OnnxModel, exclude: Sequence[str] = (), *, cautious: bool = True) -> Placement:
    """Decide for every convolution with constant weights.

    exclude: names of weights or nodes that stay float, as glob patterns. cautious: keep those that read or write
    the image in float too; without it only gates are kept.
    Raises CalibrationError if a pattern fits no convolution, or if none is left for INT8.
    """
    graph = Flow(model.view)
    if not graph.convolutions:
        raise CalibrationError("the model has no convolutions with constant weights; INT8 is made of those alone")
    kept: dict[str, str] = {}
    for node in graph.convolutions:
        reason = graph.reason_to_keep(node, cautious=cautious)
        if reason is not None:
            kept.setdefault(node.input[1], reason)
    excluded = tuple(layer for layer in _named(graph.convolutions, exclude) if layer not in kept)
    return _placement(graph, kept, excluded)


def place_as(model: OnnxModel, kept: Mapping[str, str], excluded: Iterable[str]) -> Placement:
    """The placement that a calibration table records."""
    return _placement(Flow(model.view), kept, tuple(excluded))


def _placement(graph: "Flow", kept: Mapping[str, str], excluded: tuple[str, ...]) -> Placement:
    quantized = tuple(
        node for node in graph.convolutions if node.input[1] not in kept and node.input[1] not in excluded
    )
    if not quantized:
        raise CalibrationError(
            f"nothing to quantise: all {len(graph.convolutions)} convolutions read or write the image, are gates, "
            "or were excluded; use fp16 for this network"
        )
    images = frozenset(node.input[0] for node in quantized if graph.is_image(node.input[0]))
    return Placement(quantized, kept, excluded, images, graph.joins(quantized))


def _named(convolutions: Sequence[NodeProto], patterns: Sequence[str]) -> tuple[str, ...]:
    """The weights of the convolutions whose weight or node a pattern fits."""
    names = {name for node in convolutions for name in (node.name, node.input[1])}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            weights = list(dict.fromkeys(node.input[1] for node in convolutions))
            more = ", ..." if len(weights) > _SHOWN_NAMES else ""
            raise CalibrationError(
                f"no convolution is called '{pattern}'; the model has {', '.join(weights[:_SHOWN_NAMES])}{more}"
            )
    return tuple(
        dict.fromkeys(
            node.input[1]
            for node in convolutions
            if any(fnmatchcase(name, pattern) for name in (node.name, node.input[1]) for pattern in patterns)
        )
    )


class Flow:
    """How the image flows through a graph."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self.convolutions = tuple(
            node for node in view.nodes if node.op_type in CONVOLUTIONS and node.input[1] in view.initializers
        )

    def joins(self, quantized: Sequence[NodeProto]) -> tuple[Join, ...]:
        """Where an Add reads two of `quantized` and neither of their outputs is in INT8 for another reason."""
        written = {node.output[0]: (index, node.input[1]) for index, node in enumerate(quantized)}
        rounded = {node.input[0] for node in quantized}
        joins: dict[str, Join] = {}
        for node in self._view.nodes:
            sides = set(node.input)
            if node.op_type != "Add" or not sides.issubset(written) or sides & (rounded | joins.keys()):
                continue
            if not self._becomes_image(node.output[0]):
                tensor = min(sides, key=lambda name: written[name][0])
                joins[tensor] = Join(tensor, frozenset(written[side][1] for side in sides))
        return tuple(joins.values())

    def reason_to_keep(self, node: NodeProto, *, cautious: bool) -> str | None:
        """Why a convolution stays float; None if it need not. cautious: see `place`."""
        if self._only_feeds_gates(node.output[0]) or self._is_pooled(node.input[0]):
            return "attention gate"
        if cautious and self._comes_from_image(node.input[0]):
            return "reads the image"
        if cautious and self._becomes_image(node.output[0]):
            return "writes the image"
        return None

    def _is_pooled(self, name: str) -> bool:
        """True if a tensor is made of averages over the frame: what scales features, even without a sigmoid."""
        source = self._view.producer.get(name)
        while source is not None and source.op_type in _TO_GATE and source.op_type not in _FRAME_POOLS:
            source = self._view.producer.get(source.input[0])
        return source is not None and source.op_type in _FRAME_POOLS

    def is_image(self, name: str) -> bool:
        """True if a tensor is the image or an estimate of it, but for moves and sums."""
        return self._comes_from_image(name) or self._becomes_image(name)

    def _comes_from_image(self, name: str) -> bool:
        return any(tensor in self._view.inputs for tensor in self._upstream(name))

    def _becomes_image(self, name: str) -> bool:
        return any(tensor in self._view.outputs for tensor in self._downstream(name))

    def _upstream(self, name: str) -> Iterator[str]:
        """`name` and every tensor that reaches it by being moved, not computed with."""
        pending, seen = [name], set[str]()
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            yield tensor
            source = self._view.producer.get(tensor)
            if source is not None and source.op_type in _MOVES:
                pending.extend(source.input)

    def _downstream(self, name: str) -> Iterator[str]:
        """`name` and every tensor that it reaches through sums, clipping and moves alone."""
        pending, seen = [name], set[str]()
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            yield tensor
            for consumer in self._view.consumers.get(tensor, []):
                if consumer.op_type in _TO_IMAGE:
                    pending.extend(consumer.output)

    def _only_feeds_gates(self, name: str) -> bool:
        """True if whatever is made from `name` ends in a sigmoid or softmax that is not the image, nowhere else."""
        pending, seen = [name], set[str]()
        while pending:
            tensor = pending.pop()
            consumers = self._view.consumers.get(tensor, [])
            if not consumers:
                return False
            for consumer in consumers:
                if consumer.op_type in _TO_GATE:
                    pending.extend(output for output in consumer.output if output not in seen)
                    seen.update(consumer.output)
                elif consumer.op_type not in _GATES or self._becomes_image(consumer.output[0]):
                    return False
        return True


def layer_macs(model: OnnxModel, size_hw: tuple[int, int] = _MACS_HW) -> dict[str, int]:
    """Weight -> multiply-accumulates of all convolutions with it, for one image of `size_hw`, padded.

    256 x 256 takes a fraction of a second, and shares hardly depend on the size.
    """
    convolutions = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    tensors = dict.fromkeys(name for node in convolutions for name in (_counted(node), node.input[1]))
    shapes = model.shapes(tensors, size_hw)
    macs: dict[str, int] = {}
    for node in convolutions:
        batch, _, *pixels = shapes[_counted(node)]
        weight = node.input[1]
        macs[weight] = macs.get(weight, 0) + batch * math.prod(pixels) * math.prod(shapes[weight])
    return macs


def parameters_of(model: OnnxModel) -> int:
    """Number of trained scalars."""
    return sum(math.prod(each.dims) for each in model.graph.initializer if each.data_type == TensorProto.FLOAT)


def gflop_720p(model: OnnxModel) -> float:
    """GFLOP (2 x multiply-accumulates of the convolutions) of a frame of 720 x 1280."""
    pixels = math.prod(padding_of(model.spec, _MACS_HW).padded_hw)
    return 2e-9 * sum(layer_macs(model, _MACS_HW).values()) * 720 * 1280 / pixels


def _counted(node: NodeProto) -> str:
    """The tensor at each of whose pixels all weights are applied once."""
    return str(node.output[0] if node.op_type == "Conv" else node.input[0])
