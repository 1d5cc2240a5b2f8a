"""An ONNX file -> its layers as ONNX Runtime runs them on the CPU.

The model runs twice: as it is used, for the times, and node by node as written, for what was asked to be computed.
The first fuses nodes, reorders tensors and pads channels to the width of the processor's vectors; the second knows
none of that. The names that `unblur export` gives join the two, so that the onnx package is not needed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

from unblur.runtime.profile.layers import CONVOLUTIONS, Layer, stage_and_step
from unblur.runtime.profile.onnx_profile import Node, profile_runs

BETWEEN = "between layers"
"""Name of the last layer, which is none: what a run takes beyond its nodes, the profiler's own time included."""

_Place = tuple[str, int | None]  # stage and step

_WARM_UP_RUNS = 2
_ADDED = re.compile(r"^InsertedPrecisionFreeCast_")  # by the optimiser of ONNX Runtime, before a name of the file
_PRODUCTS = frozenset({"FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger", "QGemm", "QLinearMatMul"})
_WEIGHTED = CONVOLUTIONS | _PRODUCTS
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
_MOVES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "Expand", "Gather", "Pad", "ReorderInput", "ReorderOutput", "Slice"}
    | {"SpaceToDepth", "Split", "Tile", "Transpose"}
)
_CONVERSIONS = frozenset({"Cast", "DequantizeLinear"})
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "uint8": "int8"}  # others are called as they are


def onnx_layers(
    path: Path, batch_shape: tuple[int, int, int, int], *, threads: int | None = None, runs: int = 10
) -> list[Layer]:
    """The layers of a model in the order in which they run, then `BETWEEN`.

    batch_shape: (N, 3, H, W), H and W as the model takes them. threads: see OnnxRunner. Times are medians over the
    runs. A fused layer counts to the module of its convolution. Raises what OnnxRunner raises.
    """
    ran = profile_runs(path, batch_shape, runs=runs, warm_up=_WARM_UP_RUNS, threads=threads)
    written = profile_runs(path, batch_shape, runs=1, threads=threads, graph_optimization=False)
    asked = _asked(written.nodes)
    places = _places(ran.nodes, stage_and_step(written.nodes[-1].name))
    layers = [_layer(node, place, asked) for node, place in zip(ran.nodes, places, strict=True)]
    return [*layers, Layer(BETWEEN, "", "", None, ran.between_ms, 0, 0, "", (), ())]


def _asked(nodes: Sequence[Node]) -> dict[str | _Place, Node]:
    """The nodes with weights by name, and by stage and step where one of them alone has these."""
    weighted = [(stage_and_step(node.name), node) for node in nodes if node.operator in _WEIGHTED]
    counts = Counter(place for place, _ in weighted)
    asked: dict[str | _Place, Node] = {node.name: node for _, node in weighted}
    asked.update((place, node) for place, node in weighted if place[0] and counts[place] == 1)
    return asked


def _layer(node: Node, place: _Place, asked: Mapping[str | _Place, Node]) -> Layer:
    """asked: what the file has. A run may miss weights, which were packed, and have sums that were fused."""
    stage, step = place
    computed = asked.get(place, asked.get(node.name, node)) if node.operator in _WEIGHTED else node
    return Layer(
        name=node.name,
        operator=node.operator,
        stage=stage,
        step=step,
        ms=node.ms,
        flops=_flops(computed),
        bytes=max(_bytes(node), _bytes(computed)),
        precision=_precision(node),
        inputs=tuple(map(str, node.inputs)),
        outputs=tuple(map(str, node.outputs)),
    )


def _places(nodes: Sequence[Node], last: _Place) -> Iterator[_Place]:
    """Stage and step of every node; what ONNX Runtime adds without a name counts to what it was added for.

    last: of the node that writes the output, which has the name of the output and no place when it was fused.
    """
    named = [_named(node, last) for node in nodes]
    for index, place in enumerate(named):
        near = () if place[0] else (named[other] for other in _nearest(nodes, index) if named[other][0])
        yield next(iter(near), place)


def _named(node: Node, last: _Place) -> _Place:
    place = stage_and_step(_ADDED.sub("", node.name))
    return last if node.operator in _WEIGHTED and not place[0] else place


def _nearest(nodes: Sequence[Node], index: int) -> list[int]:
    """The other nodes, first those that the one at `index` is most likely to serve: by shape, then by order."""
    node, before, after = nodes[index], range(index - 1, -1, -1), range(index + 1, len(nodes))
    writers = [other for other in before if set(nodes[other].outputs) & set(node.inputs)]
    readers = [other for other in after if set(nodes[other].inputs) & set(node.outputs)]
    likely = readers + writers if node.operator == "ReorderInput" else writers + readers
    return [*likely, *before, *after]


def _flops(node: Node) -> int:
    """2 x multiply-accumulates; one an element for what else is computed, none for what is only moved.

    A convolution whose weights the profiler does not show, packed as they are, counts none.
    """
    if node.operator in _VIEWS | _MOVES or not node.inputs:
        return 0
    read, written = node.inputs[0], node.outputs[0]
    if node.operator in _PRODUCTS:
        return 2 * written.elements * read.shape[-1]
    if node.operator not in CONVOLUTIONS:
        return max(read.elements, written.elements)
    weights = next((tensor.shape for tensor in node.inputs[1:] if len(tensor.shape) == len(read.shape)), None)
    counted = read if node.operator == "ConvTranspose" else written
    return 2 * counted.elements * prod(weights[1:]) if weights else 0


def _bytes(node: Node) -> int:
    """What is read and written once, weights included."""
    return 0 if node.operator in _VIEWS else sum(tensor.bytes for tensor in (*node.inputs, *node.outputs))


def _precision(node: Node) -> str:
    """By what it computes with: the type it reads, but of a conversion to float the type it writes."""
    source = node.outputs if node.operator in _CONVERSIONS or not node.inputs else node.inputs
    return _PRECISIONS.get(source[0].kind, source[0].kind)
