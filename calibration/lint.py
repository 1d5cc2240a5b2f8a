"""What a TensorRT parser refuses, or fuses badly, in any ONNX file.

An *error* is refused, or is computed otherwise than ONNX says; a *warning* builds and costs speed or quality. What
is refused was found by giving each construct to TensorRT-RTX's parser, which needs no GPU: see
tests/export/test_lint_agrees.py. Three rules go beyond it: it reads UINT8 with zero point 0 as INT8, takes scales
that are computed, which NVIDIA's documentation of Quantize excludes, and a scale a channel for activations, against
NVIDIA's advice. The warnings are NVIDIA's recommendations on where to put Q/DQ layers: quantise all inputs of
weighted layers, not their outputs, and the residual input of skip connections. A *note* says of an INT8 graph what
remains in float, and why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from unblur.calibration.graph_view import WEIGHTED, GraphView, attribute_of, input_name
from unblur.calibration.placement import CONVOLUTIONS, Flow

Severity = Literal["error", "warning", "note"]
Check = Callable[["LintView", NodeProto], str | None]
"""What is wrong with a node; None if nothing is."""

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_CHANNELS = 16  # INT8 tensor cores take channels in groups of 16 or 32
_INT8, _UINT8 = TensorProto.INT8, TensorProto.UINT8
_TAKEN_TYPES = {_INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN}


_NO_PARSER = frozenset(
    {"Bernoulli", "BitShift", "Compress", "ConcatFromSequence", "Det", "MaxRoiPool", "MaxUnpool", "Multinomial"}
    | {"MelWeightMatrix", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "SplitToSequence", "STFT"}
    | {"TfIdfVectorizer", "Unique", "BlackmanWindow", "HammingWindow", "HannWindow"}
)
"""Marked as not supported in docs/operators.md of onnx/onnx-tensorrt."""
_GATE = "an error of a gate scales everything after it"
_STATISTIC = "a sum over many values needs more than 8 bits"
_FLOAT_OPERATORS = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax", "Tanh"), _GATE),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceMax", "ReduceSum"), _STATISTIC),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), _STATISTIC),
    "Mul": "it applies a gate or a scale",
    "Concat": "it only moves data, in the type that its readers take",
}


class LintView(GraphView):
    """A graph with what rules ask of it as a whole."""

    @cached_property
    def flow(self) -> Flow:
        return Flow(self)

    @cached_property
    def has_int8(self) -> bool:
        """True if a weighted layer has Q/DQ on its input and its weights."""
        return any(is_quantized(self, node) for node in self.nodes)


@dataclass(frozen=True)
class Rule:
    """fix: what to do about it."""

    name: str
    severity: Severity
    fix: str
    check: Check


@dataclass(frozen=True)
class Finding:
    """One construct in one node. node: its name, or its operator and output if it has none."""

    rule: str
    severity: Severity
    node: str
    what: str
    fix: str


def lint(model: ModelProto) -> list[Finding]:
    """Every finding, in the order of `RULES` and of the graph."""
    view = LintView(model)
    return [finding for rule in RULES for finding in _apply(rule, view)]


def _apply(rule: Rule, view: LintView) -> Iterator[Finding]:
    for node in view.nodes:
        what = rule.check(view, node)
        if what is not None:
            name = node.name or f"{node.op_type} -> {node.output[0]}"
            yield Finding(rule.name, rule.severity, name, what, rule.fix)


def _zero_point(view: LintView, node: NodeProto) -> str | None:
    if node.op_type not in (_Q, _DQ) or not input_name(node, 2):
        return None
    values = view.constant(node, 2)
    if values is None:
        return "its zero point is computed"
    return f"its zero point is {values[values != 0].flat[0]}" if values.any() else None


def _quantized_type(view: LintView, node: NodeProto) -> str | None:
    """UINT8 activations are refused or read as INT8, which clips their upper half."""
    if node.op_type != _Q:
        return None
    kind = attribute_of(node, "output_dtype") or TensorProto.UNDEFINED
    if input_name(node, 2):
        zero_point = view.tensor(node, 2)
        kind = zero_point.data_type if zero_point is not None else kind
    elif kind == TensorProto.UNDEFINED:
        return "without a zero point it gives UINT8 in ONNX and INT8 in TensorRT"
    known = kind != TensorProto.UNDEFINED
    return f"it gives {TensorProto.DataType.Name(kind)}" if known and kind not in _TAKEN_TYPES else None


def _integer_weights(view: LintView, node: NodeProto) -> str | None:
    """Biases in INT32 have a rule of their own."""
    tensor = view.tensor(node, 0) if node.op_type == _DQ else None
    if tensor is None or tensor.data_type in (*_TAKEN_TYPES, TensorProto.INT32):
        return None
    return f"it reads weights of type {TensorProto.DataType.Name(tensor.data_type)}"


def _integer_bias(view: LintView, node: NodeProto) -> str | None:
    tensor = view.tensor(node, 0) if node.op_type == _DQ else None
    return None if tensor is None or tensor.data_type != TensorProto.INT32 else "it reads an INT32 bias"


def _integer_operator(view: LintView, node: NodeProto) -> str | None:
    kind = node.op_type
    integer = kind.startswith(("QLinear", "QGemm", "QAttention")) or kind.endswith("Integer")
    return f"the operator {kind} computes on integers" if integer else None


def _dynamic(view: LintView, node: NodeProto) -> str | None:
    return f"the operator {node.op_type}" if node.op_type.startswith("DynamicQuantize") else None


def _scale(view: LintView, node: NodeProto) -> str | None:
    if node.op_type not in (_Q, _DQ):
        return None
    source = view.source(node, 1)
    if view.tensor(node, 1) is None and (source is None or source.op_type != "DynamicQuantizeLinear"):
        return f"its scale '{input_name(node, 1)}' is computed"
    return None


def _scale_sign(view: LintView, node: NodeProto) -> str | None:
    values = view.constant(node, 1) if node.op_type in (_Q, _DQ) else None
    if values is None or (np.asarray(values, np.float64) > 0).all():
        return None
    return f"its smallest scale is {np.asarray(values, np.float64).min():g}"


def _per_channel_activation(view: LintView, node: NodeProto) -> str | None:
    tensor = view.tensor(node, 1) if node.op_type == _Q and view.tensor(node, 0) is None else None
    if tensor is None or int(np.prod(tensor.dims)) <= 1:
        return None
    return f"an activation with {int(np.prod(tensor.dims))} scales"


def _antialias(view: LintView, node: NodeProto) -> str | None:
    return "a Resize with antialias" if node.op_type == "Resize" and attribute_of(node, "antialias") else None


def _unknown(view: LintView, node: NodeProto) -> str | None:
    if _integer_operator(view, node):
        return None
    if node.domain not in ("", "ai.onnx"):
        return f"the operator {node.op_type} of the domain {node.domain}"
    refused = node.op_type in _NO_PARSER or node.op_type.startswith(("Sequence", "Optional", "String"))
    return f"the operator {node.op_type}" if refused else None


def _fourier(view: LintView, node: NodeProto) -> str | None:
    return "a Fourier transform" if node.op_type == "DFT" else None


def _quantized_output(view: LintView, node: NodeProto) -> str | None:
    """What feeds another weighted layer, or an Add with one, is quantised as their input."""
    source = view.source(node, 0) if node.op_type == _Q else None
    if source is None or source.op_type not in WEIGHTED:
        return None
    readers = [reader for dequantize in view.readers(node) for reader in view.readers(dequantize)]
    if any(reader.op_type in WEIGHTED or _has_weighted_branch(view, reader) for reader in readers):
        return None
    return f"the output of {source.op_type} '{source.name}' is quantised"


def _has_weighted_branch(view: LintView, node: NodeProto) -> bool:
    sources = [view.source(node, position) for position in range(len(node.input))]
    return node.op_type == "Add" and any(source is not None and source.op_type in WEIGHTED for source in sources)


def _float_residual(view: LintView, node: NodeProto) -> str | None:
    if node.op_type != "Add" or any(view.tensor(node, position) is not None for position in (0, 1)):
        return None
    sources = [view.source(node, position) for position in (0, 1)]
    quantized = [source for source in sources if source is not None and is_quantized(view, source)]
    dequantized = [source for source in sources if source is not None and source.op_type == _DQ]
    if not quantized or dequantized or _is_image_residual(view, node):
        return None
    return f"it adds the quantised '{quantized[0].name}' to a branch that is not"


def _is_image_residual(view: LintView, node: NodeProto) -> bool:
    return node.op_type == "Add" and any(view.flow.is_image(name) for name in (*node.input, *node.output))


def _float_image(view: LintView, node: NodeProto) -> str | None:
    """Rounding the image would show: its values are never negative, so symmetric INT8 holds it in 7 bits."""
    if not view.has_int8 or not _is_image_residual(view, node):
        return None
    return "it adds the image, which 7 bits would show"


def _float_layer(view: LintView, node: NodeProto) -> str | None:
    if not view.has_int8 or node.op_type not in WEIGHTED or is_quantized(view, node):
        return None
    reason = view.flow.reason_to_keep(node, cautious=True) if node.op_type in CONVOLUTIONS else None
    return f"{node.op_type}: {reason or 'left in float by the search or by choice'}"


def _float_operator(view: LintView, node: NodeProto) -> str | None:
    reason = _FLOAT_OPERATORS.get(node.op_type) if view.has_int8 else None
    return None if reason is None else f"{node.op_type}: {reason}"


def _half_quantized(view: LintView, node: NodeProto) -> str | None:
    if node.op_type not in WEIGHTED or len(node.input) < 2:
        return None
    activation, weight = (_dequantize(view, node, position) is not None for position in (0, 1))
    if activation == weight:
        return None
    return "only its input is quantised" if activation else "only its weights are quantised"


def _per_tensor_weights(view: LintView, node: NodeProto) -> str | None:
    if node.op_type not in CONVOLUTIONS or not is_quantized(view, node):
        return None
    dequantize = _dequantize(view, node, 1)
    scale = None if dequantize is None else view.tensor(dequantize, 1)
    return "one scale for all its weights" if scale is not None and int(np.prod(scale.dims)) == 1 else None


def _channels(view: LintView, node: NodeProto) -> str | None:
    if node.op_type not in CONVOLUTIONS or not is_quantized(view, node):
        return None
    shape, groups = _weight_shape(view, node), attribute_of(node, "group") or 1
    if len(shape) < 2 or not isinstance(groups, int):
        return None
    first, second = shape[0], shape[1] * groups
    inputs, outputs = (second, first) if node.op_type == "Conv" else (first, second)
    return f"{inputs} channels in, {outputs} out" if inputs % _CHANNELS or outputs % _CHANNELS else None


def is_quantized(view: LintView, node: NodeProto) -> bool:
    """True if both the input and the weights of a layer come from Q/DQ."""
    if node.op_type not in WEIGHTED:
        return False
    return all(_dequantize(view, node, position) is not None for position in (0, 1))


def _dequantize(view: LintView, node: NodeProto, position: int) -> NodeProto | None:
    source = view.source(node, position)
    return source if source is not None and source.op_type == _DQ else None


def _weight_shape(view: LintView, node: NodeProto) -> tuple[int, ...]:
    """Of weights stored in 8 bits, or in float before a Q/DQ pair; () if neither."""
    dequantize = _dequantize(view, node, 1)
    if dequantize is None:
        return ()
    quantize = view.source(dequantize, 0)
    tensor = view.tensor(dequantize, 0) if quantize is None else view.tensor(quantize, 0)
    return () if tensor is None else tuple(tensor.dims)


RULES = (
    Rule("zero-point", "error", "quantise symmetrically, with zero point 0", _zero_point),
    Rule("quantized-type", "error", "quantise to INT8", _quantized_type),
    Rule("weight-type", "error", "store weights as INT8", _integer_weights),
    Rule("int32-bias", "error", "leave biases in float (QuantizeBias=False)", _integer_bias),
    Rule("integer-operator", "error", "write Q/DQ around the float operator (QuantFormat.QDQ)", _integer_operator),
    Rule("dynamic-quantization", "error", "calibrate, so that scales are constants", _dynamic),
    Rule("computed-scale", "error", "calibrate, so that scales are constants", _scale),
    Rule("scale-sign", "error", "scales are positive; measure on pictures that excite the layer", _scale_sign),
    Rule("per-channel-activation", "error", "one scale a tensor for activations", _per_channel_activation),
    Rule("resize-antialias", "error", "average before a Resize without antialias", _antialias),
    Rule("fourier", "error", "keep Fourier transforms in the loss, out of the network", _fourier),
    Rule("unknown-operator", "error", "write it with standard operators, or run it in ONNX Runtime", _unknown),
    Rule("quantized-output", "warning", "quantise inputs of weighted layers, not their outputs", _quantized_output),
    Rule("float-residual", "warning", "quantise the branch too, so that the Add is fused in INT8", _float_residual),
    Rule("half-quantized", "warning", "quantise both inputs or none", _half_quantized),
    Rule("per-tensor-weights", "warning", "one scale an output channel for weights", _per_tensor_weights),
    Rule("float-layer", "note", "runs in float by design", _float_layer),
    Rule("float-image", "note", "stays in float by design", _float_image),
    Rule("float-operator", "note", "runs in float by design", _float_operator),
    Rule("channels", "warning", f"make channels multiples of {_CHANNELS}, or leave it in float16", _channels),
)
"""In the order in which they are reported."""
