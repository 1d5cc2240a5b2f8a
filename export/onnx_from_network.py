"""A torch network -> an fp32 ONNX graph with dynamic batch, height and width.

The recursion is unrolled; every step refers to the same initialisers, so the weights are stored once however many
steps there are.
"""

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxsim
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto
from torch import nn
from torch.export import Dim

from unblur.calibration.graph_view import WEIGHTED, strip_provenance
from unblur.calibration.onnx_model import OnnxModel, described
from unblur.runtime.errors import BadInput
from unblur.runtime.spec import ModelSpec
from unblur.train.checkpoint import load_checkpoint
from unblur.train.networks import DeblurringNetwork

_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note on a node: its modules, outermost first, and itself
_FUSED = frozenset({"Add", "Clip", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"})
"""What ONNX Runtime and TensorRT compute together with the convolution that it follows."""


class _Place(NamedTuple):
    """stage: path of a module. step: from 1; None outside of a recursion."""

    stage: str
    step: int | None


StepOf = Callable[[str, int], int | None]
"""The recursion step in which a module computes for the n-th time; see `DeblurringNetwork.step_of`."""


def _no_steps(module: str, use: int) -> None:
    """A network without recursion."""


def name_layers(graph: GraphProto, step_of: StepOf = _no_steps) -> None:
    """Rename the nodes of `graph`, as torch exported it, and the tensors between them.

    Inputs, outputs and weights keep their names. Names are unique: the second Add of a module is "Add_2".
    """
    kept = {value.name for value in graph.output}
    counts: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node, place in zip(graph.node, _places(graph, step_of), strict=True):
        step = f"step{place.step}" if place.step else ""
        name = "/".join(part for part in (step, place.stage, node.op_type) if part)
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        for index, output in enumerate(node.output):
            if output not in kept:
                renamed[output] = f"{node.name}:{index}" if index else node.name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _places(graph: GraphProto, step_of: StepOf) -> list[_Place]:
    """The place of every node: of its weights or its module, else of what it follows, else of what it feeds."""
    weights = {tensor.name for tensor in graph.initializer}
    uses: Counter[str] = Counter()
    places: dict[int, _Place] = {}
    writer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if node.op_type in WEIGHTED and node.input[1] in weights:
            module = node.input[1].rpartition(".")[0]
            uses[module] += 1
            places[index] = _Place(module, step_of(module, uses[module]))
        else:
            sources = [writer[name] for name in node.input if writer.get(name) in places]
            place = _without_weights(node, places[max(sources)] if sources else None)
            if place is not None:
                places[index] = place
        writer.update(dict.fromkeys(node.output, index))
    return _with_beginning(graph, places)


def _without_weights(node: NodeProto, followed: _Place | None) -> _Place | None:
    """The place of a node by its module. followed: the place of the latest node that it reads from."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    module = scopes[-2] if len(scopes) > 1 else ""
    if followed is None:
        return _Place(module, None) if module else None
    return _Place(module, followed.step) if module and node.op_type not in _FUSED else followed


def _with_beginning(graph: GraphProto, places: dict[int, _Place]) -> list[_Place]:
    """Give what comes before all modules, as pyramids and their shapes do, the place of the first that reads it."""
    reader: dict[str, _Place] = {}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if index not in places:
            places[index] = next((reader[name] for name in node.output if name in reader), _Place("", None))
        reader.update(dict.fromkeys(node.input, places[index]))
    return [places[index] for index in range(len(graph.node))]


OPSET = 20
INPUT = "blurred"
OUTPUT = "restored"
_AXES = ("batch", None, "height", "width")
_EXAMPLE_MULTIPLES = (2, 3, 4)  # batch, height, width: all different and above 1, so that none is taken as fixed
_EXAMPLE_SIDE = 8  # pixels, at least: room for a network without a multiple of its own


def onnx_from_checkpoint(path: Path, *, steps: int | None = None) -> OnnxModel:
    """Export the network of a checkpoint. steps: run the same weights for another number of recursion steps.

    Raises BadInput or SpecMismatch for a checkpoint that cannot be used.
    """
    return onnx_from_network(load_checkpoint(path, steps=steps))


def onnx_from_network(network: DeblurringNetwork) -> OnnxModel:
    """Export a network in eval mode; the spec goes into the metadata."""
    return onnx_from_module(network.folded(), network.spec, step_of=network.step_of)


def onnx_from_module(
    module: nn.Module, spec: ModelSpec, output: int = 0, *, step_of: StepOf = _no_steps
) -> OnnxModel:
    """Export any torch module in eval mode. output: which of its outputs is the image; the others are dropped.

    Raises BadInput, naming the cause, for a module that torch cannot export.
    """
    multiple = spec.multiple_of
    batch, *factors = _EXAMPLE_MULTIPLES
    rows, columns = (factor * -(-_EXAMPLE_SIDE // multiple) for factor in factors)
    example = next(module.parameters(), torch.empty(0)).new_zeros((batch, 3, rows * multiple, columns * multiple))
    try:
        model = _exported(module, example, multiple)
    except Exception as error:  # the user's code inside torch's exporter: any
        raise BadInput(f"torch cannot export {spec.preset}: {_cause(error)}") from error
    name_layers(model.graph, step_of)
    _keep_output(model.graph, output)
    strip_provenance(model)
    for value in (*model.graph.input, *model.graph.output):
        _name_axes(value)
    return described(model, spec, "fp32")


def _exported(module: nn.Module, example: torch.Tensor, multiple: int) -> ModelProto:
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            dynamic_shapes=({0: Dim("batch"), 2: multiple * Dim("rows"), 3: multiple * Dim("columns")},),
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export gave no program although no file was asked for")
    return program.model_proto


def _cause(error: BaseException) -> str:
    """The first line of what began it: the exporter wraps errors in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _keep_output(graph: GraphProto, index: int) -> None:
    """Drop all outputs but one, which is called `OUTPUT`, and the nodes that only they need."""
    chosen = graph.output[index].name
    for node in graph.node:
        node.input[:] = [OUTPUT if name == chosen else name for name in node.input]
        node.output[:] = [OUTPUT if name == chosen else name for name in node.output]
    graph.output[index].name = OUTPUT
    kept = [graph.output[index]]
    del graph.output[:]
    graph.output.extend(kept)
    needed, nodes = {OUTPUT}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(nodes))


def _name_axes(value: ValueInfoProto) -> None:
    """Call the dynamic axes batch, height and width, where the exporter writes "16*rows"."""
    for dimension, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=True):
        if name is not None:
            dimension.dim_param = name


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about its own internals; its errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


MAX_DIFFERENCE = 1e-5  # of values in [0, 1]; float32 rounding in another order stays well below it
_SEED = 2
_SIZES_IN_MULTIPLES = ((2, 3), (5, 4))


@dataclass(frozen=True)
class Simplification:
    """`model` is the smaller graph if it was `kept`, else the one that was given. reason: in one line."""

    model: OnnxModel
    kept: bool
    reason: str


def simplify(model: OnnxModel) -> Simplification:
    """Fold constants and drop dead nodes with onnxsim.

    Its result is taken only if it has no more nodes and no more bytes (it can inflate repeated blocks,
    onnxsim#633) and gives the same image within `MAX_DIFFERENCE` on random input of two sizes.
    """
    graph, _ = onnxsim.simplify(model.proto)
    strip_provenance(graph)
    simplified = described(graph, model.spec, "fp32")
    size, new_size = _size(model), _size(simplified)
    change = f"{size[0]} -> {new_size[0]} nodes, {size[1]} -> {new_size[1]} bytes"
    if new_size[0] > size[0] or new_size[1] > size[1]:
        return Simplification(model, False, f"onnxsim makes it larger ({change})")
    difference = max_difference(model, simplified)
    if not difference <= MAX_DIFFERENCE:
        return Simplification(model, False, f"onnxsim changes the image by {difference:.2g}")
    return Simplification(simplified, True, f"onnxsim: {change}, largest difference {difference:.2g}")


def max_difference(model: OnnxModel, other: OnnxModel) -> float:
    """Largest absolute difference of two graphs on seeded random images of two sizes; NaN if either gives NaN."""
    multiple = model.spec.multiple_of
    rng = np.random.default_rng(_SEED)
    differences = []
    for rows, columns in _SIZES_IN_MULTIPLES:
        images = rng.random((1, 3, rows * multiple, columns * multiple), np.float32)
        differences.append(np.abs(_run(model, images) - _run(other, images)).max())
    return float(np.max(differences))


def _run(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    restored: NDArray[np.float32] = model.session(optimized=False).run(None, {model.input: images})[0]
    return restored


def _size(model: OnnxModel) -> tuple[int, int]:
    return len(model.graph.node), model.proto.ByteSize()
