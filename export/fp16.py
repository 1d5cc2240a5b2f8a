"""fp32 graph -> typed fp16 graph.

Precision lives in the graph, never in a builder flag: the one way that TensorRT 10, 11 and TensorRT-RTX all accept
(strong typing). Inputs and outputs stay float32, so a caller feeds every precision the same way.
"""

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from unblur.calibration.onnx_model import GraphView, OnnxModel, described, sort_nodes, strip_provenance
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


def _is_cast(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)
