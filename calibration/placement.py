"""Which convolutions become INT8.

Every one does, except those that published results and NVIDIA's advice for low-level vision name as costly:

- the first convolution reads the image, whose 8-bit steps would be rounded a second time;
- the last one writes the residual of the image, where an error is seen as it is;
- the convolutions of an attention gate scale everything after them and cost next to nothing.

The *global* image residual, an Add, is never quantised: only the inputs of convolutions are. All three are
recognised by structure, not by name, so the rule holds for every network. It is decided per weight tensor: the
steps of a recursion share their weights, and one that is INT8 in one step and float in another is stored twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto, NodeProto

from unblur.runtime.errors import CalibrationError

CONVOLUTIONS = ("Conv", "ConvTranspose")
_MOVES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Resize", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "AveragePool", "MaxPool"}
)
_TO_IMAGE = _MOVES | {"Add", "Sub", "Clip", "Tanh", "Sigmoid"}
_TO_GATE = _MOVES | {"Add", "GlobalAveragePool", "LeakyRelu", "PRelu", "ReduceMean", "Relu", *CONVOLUTIONS}
_GATES = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})


@dataclass(frozen=True)
class Placement:
    """quantized: the nodes that get Q/DQ, in graph order. kept: weight tensor -> why it stays float."""

    quantized: tuple[NodeProto, ...]
    kept: Mapping[str, str]

    @property
    def activations(self) -> tuple[str, ...]:
        """The tensors whose ranges are needed: what the quantised convolutions read, each once."""
        return tuple(dict.fromkeys(node.input[0] for node in self.quantized))


def place(model: ModelProto) -> Placement:
    """Decide for every convolution with constant weights; CalibrationError if none is left for INT8."""
    graph = _Flow(model)
    convolutions = [
        node for node in model.graph.node if node.op_type in CONVOLUTIONS and node.input[1] in graph.initializers
    ]
    kept: dict[str, str] = {}
    for node in convolutions:
        reason = graph.reason_to_keep(node)
        if reason is not None:
            kept.setdefault(node.input[1], reason)
    quantized = tuple(node for node in convolutions if node.input[1] not in kept)
    if not quantized:
        raise CalibrationError(
            f"nothing to quantise: all {len(convolutions)} convolutions read or write the image or are gates; "
            "use fp16 for this network"
        )
    return Placement(quantized, kept)


class _Flow:
    """Where the tensors of a graph come from and go to."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self.initializers = {tensor.name for tensor in self._graph.initializer}
        self._inputs = {value.name for value in self._graph.input}
        self._outputs = {value.name for value in self._graph.output}

    @cached_property
    def _producer(self) -> dict[str, NodeProto]:
        return {name: node for node in self._graph.node for name in node.output}

    @cached_property
    def _consumers(self) -> dict[str, list[NodeProto]]:
        consumers: dict[str, list[NodeProto]] = {}
        for node in self._graph.node:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        return consumers

    def reason_to_keep(self, node: NodeProto) -> str | None:
        if any(name in self._inputs for name in self._upstream(node.input[0])):
            return "reads the image"
        if any(name in self._outputs for name in self._downstream(node.output[0])):
            return "writes the image"
        if self._only_feeds_gates(node.output[0]):
            return "attention gate"
        return None

    def _upstream(self, name: str) -> Iterator[str]:
        """`name` and every tensor that reaches it by being moved, not computed with."""
        pending, seen = [name], set[str]()
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            yield tensor
            source = self._producer.get(tensor)
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
            for consumer in self._consumers.get(tensor, []):
                if consumer.op_type in _TO_IMAGE:
                    pending.extend(consumer.output)

    def _only_feeds_gates(self, name: str) -> bool:
        """True if whatever is made from `name` ends in a sigmoid or softmax and nowhere else."""
        pending, seen = [name], set[str]()
        while pending:
            tensor = pending.pop()
            consumers = self._consumers.get(tensor, [])
            if not consumers:
                return False
            for consumer in consumers:
                if consumer.op_type in _TO_GATE:
                    pending.extend(output for output in consumer.output if output not in seen)
                    seen.update(consumer.output)
                elif consumer.op_type not in _GATES:
                    return False
        return True
