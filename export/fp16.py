"""fp32 graph -> typed fp16 graph.

Precision lives in the graph, never in a builder flag: the one way that TensorRT 10, 11 and TensorRT-RTX all accept
(strong typing). Inputs and outputs of a file stay float32, so a caller feeds every precision the same way; those of
an engine become float16 when it is built.
"""

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from unblur.calibration.graph_view import GraphView, sort_nodes, strip_provenance
from unblur.calibration.onnx_model import OnnxModel, described
from unblur.runtime.errors import BadInput
from unblur.runtime.spec import Precision

_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
_FRAME_NORMS = frozenset({"GlobalAveragePool", "GlobalLpPool", "InstanceNormalization", "GroupNormalization"})
_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_CHANNEL_AXIS = 1


def fp16_from_fp32(model: OnnxModel) -> OnnxModel:
    """The same network with float16 weights and arithmetic, float32 at both ends; `model` is left alone.

    Sums over the rows and columns of a frame stay in float32: at 1280 x 720 a sum of values near 1 passes 65504,
    the largest float16. So does whatever is compared: a value rounded past a threshold is wrong by all of it.
    """
    if model.precision != "fp32":
        raise BadInput(f"the fp16 graph is made from fp32, got precision '{model.precision}'")
    return _halve(model, "fp16")


def int8_fp16_from_int8(model: OnnxModel) -> OnnxModel:
    """A Q/DQ graph whose remaining float parts, scales included, are float16, as `fp16_from_fp32` does it.

    Under strong typing the convolutions that are not quantised would otherwise run in float32, which makes an INT8
    engine slower than an fp16 one.
    """
    if model.precision != "int8":
        raise BadInput(f"expected a Q/DQ graph, got precision '{model.precision}'")
    return _halve(model, "int8")


def _halve(model: OnnxModel, precision: Precision) -> OnnxModel:
    copy = model.copied()
    axes = _axes_tensors(copy)
    exact = [node.name for node in copy.graph.node if _sums_over_frame(node, axes)] + _compared(copy)
    half: ModelProto = convert_float_to_float16(
        copy,
        keep_io_types=True,
        op_block_list=DEFAULT_OP_BLOCK_LIST,
        node_block_list=exact,
    )
    _drop_repeated_casts(half)
    _drop_round_trips(half)
    sort_nodes(half.graph)
    strip_provenance(half)
    return described(half, model.spec, precision)


def _axes_tensors(model: ModelProto) -> dict[str, list[int]]:
    """The constants that a reduction may take its axes from."""
    return {
        tensor.name: numpy_helper.to_array(tensor).ravel().tolist()
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT64 and len(tensor.dims) == 1
    }


def _sums_over_frame(node: NodeProto, axes_tensors: dict[str, list[int]]) -> bool:
    if node.op_type in _FRAME_NORMS:
        return True
    if node.op_type not in _REDUCTIONS:
        return False
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1:
        axes = axes_tensors.get(node.input[1])
    return axes != [_CHANNEL_AXIS]


def _compared(model: ModelProto) -> list[str]:
    """The names of all comparisons and of all nodes that what they compare comes from."""
    view = GraphView(model)
    pending = [node for node in view.nodes if node.op_type in _COMPARISONS]
    found: dict[str, None] = {}
    while pending:
        node = pending.pop()
        if node.name not in found:
            found[node.name] = None
            pending.extend(view.producer[name] for name in node.input if name in view.producer)
    return list(found)


def _drop_repeated_casts(model: ModelProto) -> None:
    """The converter writes one cast per consumer, all with the same output; a graph may produce it once."""
    produced: set[str] = set()
    once = []
    for node in model.graph.node:
        if produced.isdisjoint(node.output):
            once.append(node)
        produced.update(node.output)
    del model.graph.node[:]
    model.graph.node.extend(once)


def _drop_round_trips(model: ModelProto) -> None:
    """Between two nodes that stay in float32 the converter rounds to float16: let them hand on what they have."""
    casts = {node.output[0]: node for node in model.graph.node if _is_cast(node, TensorProto.FLOAT16)}
    for node in model.graph.node:
        if _is_cast(node, TensorProto.FLOAT) and node.input[0] in casts:
            node.input[0] = casts[node.input[0]].input[0]
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    for node in casts.values():
        if node.output[0] not in used:
            model.graph.node.remove(node)


def half_ends(model: OnnxModel) -> ModelProto:
    """The graph of an fp16 or INT8 model with float16 at both ends too, as an engine takes and gives it.

    A caller on a GPU then converts a frame to float16 at once, and nothing is cast in between.
    """
    proto = model.copied()
    view = GraphView(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            (_end_in_half if value.name in view.producer else _begin_in_half)(proto, view, value.name)
    sort_nodes(proto.graph)
    return proto


def _begin_in_half(proto: ModelProto, view: GraphView, name: str) -> None:
    """Whoever casts the input takes it as it is; the others, in float32, a cast of it."""
    for node in view.consumers.get(name, []):
        if _is_cast(node, TensorProto.FLOAT16):
            _read_instead(view, node.output[0], name)
            proto.graph.node.remove(node)
        elif node.op_type != "Shape":
            node.input[list(node.input).index(name)] = f"{name}_float32"
    if any(f"{name}_float32" in node.input for node in proto.graph.node):
        proto.graph.node.append(_cast(name, f"{name}_float32", TensorProto.FLOAT))


def _end_in_half(proto: ModelProto, view: GraphView, name: str) -> None:
    """The output is what is cast to it now, or a cast of it."""
    last = view.producer[name]
    if _is_cast(last, TensorProto.FLOAT) and last.input[0] in view.producer:
        half = last.input[0]
        proto.graph.node.remove(last)
        outputs = view.producer[half].output
        outputs[list(outputs).index(half)] = name
        _read_instead(view, half, name)
        return
    outputs = last.output
    outputs[list(outputs).index(name)] = f"{name}_float32"
    _read_instead(view, name, f"{name}_float32")
    proto.graph.node.append(_cast(f"{name}_float32", name, TensorProto.FLOAT16))


def _read_instead(view: GraphView, before: str, after: str) -> None:
    for node in view.consumers.get(before, []):
        for index, name in enumerate(node.input):
            if name == before:
                node.input[index] = after


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def _is_cast(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)
