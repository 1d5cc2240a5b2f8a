"""A graph from elsewhere as the editors of this room expect it."""

from collections import Counter
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, inliner, numpy_helper, version_converter
from onnx.checker import ValidationError

from unblur.calibration.graph_view import attribute_of, graphs_of
from unblur.runtime.errors import BadInput

_MIN_OPSET = 13  # the first whose DequantizeLinear has a scale per channel
_HALF_OPSET = 19  # the first where that scale may be float16, as in an INT8 graph whose rest is float16


def editable(proto: ModelProto, path: Path) -> ModelProto:
    """A graph from elsewhere as the editors here expect it: an opset that has Q/DQ per channel, no local functions,
    constants as initialisers, and a name of its own for every node.
    """
    proto = _converted(proto, path)
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


def _converted(proto: ModelProto, path: Path) -> ModelProto:
    """With the opset that INT8 with float16 takes; if an operator stands in the way, the least for INT8."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), _MIN_OPSET)
    reason = ""
    for wanted in (_HALF_OPSET, _MIN_OPSET):
        if opset >= wanted:
            return proto
        try:
            return version_converter.convert_version(proto, wanted)
        except (RuntimeError, ValidationError) as error:
            reason = " ".join(str(error).split())
    raise BadInput(f"{path} has opset {opset}, and cannot be converted to {_MIN_OPSET}: {reason}; export it again")


def in_rgb(proto: ModelProto) -> None:
    """Make a graph for one channel take RGB and give it, the planes of an image a batch within: in place.

    So it also runs where only images of three channels do, in an engine.
    """
    graph = proto.graph
    source, target = graph.input[0], graph.output[0]
    planes = {value.name: f"{value.name}.planes" for value in (source, target)}
    for node in (node for each in graphs_of(graph) for node in each.node):
        for names in (node.input, node.output):
            names[:] = [planes.get(name, name) for name in names]
    entry = _reshape(graph, source.name, planes[source.name], channels=1)
    exit_ = _reshape(graph, planes[target.name], target.name, channels=3)
    nodes = [entry, *graph.node, exit_]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (source, target):
        batch, channels = value.type.tensor_type.shape.dim[:2]
        batch.dim_param, channels.dim_value = "batch", 3


def _reshape(graph: GraphProto, source: str, target: str, *, channels: int) -> NodeProto:
    """(N, C, H, W) to as many images of `channels` as that makes; its shape is added to the graph."""
    shape = numpy_helper.from_array(np.array([-1, channels, 0, 0], np.int64), f"{target}.sides")
    graph.initializer.append(shape)
    return helper.make_node("Reshape", [source, shape.name], [target], name=f"{target}.reshape")
