"""An ONNX file -> its layers as ONNX Runtime runs them on the CPU.

The model runs twice: as it is used, for the times, and node by node as written, for what was asked to be computed.
The first fuses nodes, reorders tensors and pads channels to the width of the processor's vectors; the second does
none of that. Names join the two where the file has them, else order and shapes; the onnx package is not needed.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from unblur.runtime.files import scratch_folder
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.profile.layers import CONVOLUTIONS, Layer, stage_and_step
from unblur.runtime.spec import SpecOverrides

_SEED = 5
_NODE = "_kernel_time"  # how the events end that are of a node
_RUN = "model_run"
_TYPES = {"float": "float32", "double": "float64"}  # ONNX's names of types where numpy has others


@dataclass(frozen=True)
class Tensor:
    """kind: type of its elements, as numpy names it."""

    kind: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * np.dtype(self.kind).itemsize

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Node:
    """A node as it ran. ms: median over the runs. inputs: weights too, which an optimiser may have padded."""

    name: str
    operator: str
    ms: float
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class OnnxProfile:
    """nodes: in the order in which they ran. between_ms: median of what a run took beyond its nodes."""

    nodes: tuple[Node, ...]
    between_ms: float


def profile_runs(
    path: Path,
    batch_shape: tuple[int, int, int, int],
    *,
    runs: int,
    warm_up: int = 0,
    threads: int | None = None,
    graph_optimization: bool = True,
    overrides: SpecOverrides = SpecOverrides(),
) -> OnnxProfile:
    """Run a model on random images and collect the time of each node.

    warm_up: runs before those that count. threads, graph_optimization, overrides: see OnnxRunner. Raises what
    OnnxRunner raises, ValueError for fewer than one run or a shape that the model does not take.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}, expected at least 1")
    batch = np.random.default_rng(_SEED).random(batch_shape, np.float32)
    with scratch_folder() as folder:
        with OnnxRunner(
            path,
            threads=threads,
            graph_optimization=graph_optimization,
            profile_to=folder,
            overrides=overrides,
        ) as runner:
            for _ in range(warm_up + runs):
                runner.infer(batch)
        (file,) = folder.iterdir()
        counted = list(_runs(json.loads(file.read_text())))[warm_up:]
    return OnnxProfile(
        nodes=tuple(_node(same) for same in zip(*(events for events, _ in counted), strict=True)),
        between_ms=median(between_ms for _, between_ms in counted),
    )


def _runs(events: Sequence[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], float]]:
    """The events of the nodes of each run, and the ms that it took beyond them."""
    nodes: list[dict[str, Any]] = []
    for event in events:
        if event["name"].endswith(_NODE):
            nodes.append(event)
        elif event["name"] == _RUN:
            yield nodes, (event["dur"] - sum(node["dur"] for node in nodes)) / 1e3
            nodes = []


def _node(events: Sequence[dict[str, Any]]) -> Node:
    """events: of one node, one a run; nodes run in the same order every time."""
    first = events[0]
    return Node(
        name=first["name"].removesuffix(_NODE),
        operator=first["args"]["op_name"],
        ms=median(event["dur"] for event in events) / 1e3,
        inputs=_tensors(first["args"]["input_type_shape"]),
        outputs=_tensors(first["args"]["output_type_shape"]),
    )


def _tensors(raw: Sequence[dict[str, list[int]]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(_TYPES.get(kind, kind), tuple(shape)) for entry in raw for kind, shape in entry.items())


BETWEEN = "between layers"
"""Name of the last layer, which is none: what a run takes beyond its nodes, the profiler's own time included."""

_Place = tuple[str, int | None]  # stage and step

_WARM_UP_RUNS = 2
_WIDEST_BLOCK = 16  # channels; those of AVX-512
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
    path: Path,
    batch_shape: tuple[int, int, int, int],
    *,
    threads: int | None = None,
    runs: int = 10,
    overrides: SpecOverrides = SpecOverrides(),
) -> list[Layer]:
    """The layers of a model in the order in which they run, then `BETWEEN`.

    batch_shape: (N, 3, H, W), H and W as the model takes them. threads, overrides: see OnnxRunner. Times are
    medians over the runs. A fused layer counts to the module of its convolution. Raises what OnnxRunner raises.
    """
    run = partial(profile_runs, path, batch_shape, threads=threads, overrides=overrides)
    ran, written = run(runs=runs, warm_up=_WARM_UP_RUNS), run(runs=1, graph_optimization=False)
    places = list(_places(ran.nodes, stage_and_step(written.nodes[-1].name)))
    computed = _as_written(ran.nodes, places, written.nodes)
    layers = [_layer(*each) for each in zip(ran.nodes, computed, places, strict=True)]
    return [*layers, Layer(BETWEEN, "", "", None, ran.between_ms, 0, 0, "", (), ())]


def _as_written(ran: Sequence[Node], places: Sequence[_Place], written: Sequence[Node]) -> list[Node]:
    """For each node that ran the one of the file that it computes; a node without weights stands for itself.

    ONNX Runtime pads channels, to 8 with AVX2 and to 16 with AVX-512, so the shapes that ran say too much. Nodes
    are matched by stage and step, else by name, else by order and shape.
    """
    named = _by_place_and_name(written)
    found = [named.get(place, named.get(node.name)) for node, place in zip(ran, places, strict=True)]
    matched = {id(node) for node in found}
    rest = [node for node in written if node.operator in _WEIGHTED and id(node) not in matched]
    result = []
    for node, match in zip(ran, found, strict=True):
        if node.operator in _WEIGHTED and match is None:
            match = next((other for other in rest if _is_padded(node, other)), None)
            rest = [other for other in rest if other is not match]
        result.append(match if match is not None and node.operator in _WEIGHTED else node)
    return result


def _by_place_and_name(nodes: Sequence[Node]) -> dict[str | _Place, Node]:
    """The nodes with weights by name, and by stage and step where one of them alone has these."""
    weighted = [(stage_and_step(node.name), node) for node in nodes if node.operator in _WEIGHTED]
    counts = Counter(place for place, _ in weighted)
    found: dict[str | _Place, Node] = {node.name: node for _, node in weighted}
    found.update((place, node) for place, node in weighted if place[0] and counts[place] == 1)
    return found


def _is_padded(ran: Node, written: Node) -> bool:
    """Whether `ran` has the output of `written`, with at most one block of channels more."""
    shape, padded = written.outputs[0].shape, ran.outputs[0].shape
    if len(shape) != 4 or len(padded) != 4:
        return shape == padded
    return (shape[0], *shape[2:]) == (padded[0], *padded[2:]) and 0 <= padded[1] - shape[1] < _WIDEST_BLOCK


def _layer(node: Node, computed: Node, place: _Place) -> Layer:
    """computed: as the file has it. A run may miss weights, which were packed, and have sums that were fused."""
    stage, step = place
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
