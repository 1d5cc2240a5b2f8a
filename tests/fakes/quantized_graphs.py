"""One quantised convolution in ONNX, right or with one fault."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

CHANNELS = 16
_WEIGHTS = np.random.default_rng(0).integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)


@dataclass
class QuantizedConv:
    """x -> Q -> DQ -> Conv -> y, with weights -> DQ; the fields are what the constants hold."""

    scale: ArrayLike = field(default_factory=lambda: np.float32(0.02))
    zero_point: ArrayLike | None = field(default_factory=lambda: np.int8(0))
    weights: ArrayLike = field(default_factory=lambda: _WEIGHTS)
    weight_scale: ArrayLike = field(default_factory=lambda: np.full(CHANNELS, 0.001, np.float32))
    weight_zero_point: ArrayLike = field(default_factory=lambda: np.zeros(CHANNELS, np.int8))
    int32_bias: bool = False
    after: Sequence[NodeProto] = ()
    opset: int = 20

    def model(self) -> ModelProto:
        """after: nodes from "y" to "z", which is then the output."""
        constants = {"s": self.scale, "w": self.weights, "ws": self.weight_scale, "wz": self.weight_zero_point}
        per_channel = {"axis": 1} if np.ndim(self.scale) else {}
        quantize = ["s"]
        if self.zero_point is not None:
            constants["z"] = self.zero_point
            quantize.append("z")
        nodes = [
            helper.make_node("QuantizeLinear", ["x", *quantize], ["xq"], "quantize", **per_channel),
            helper.make_node("DequantizeLinear", ["xq", *quantize], ["xd"], "dequantize", **per_channel),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "weights", axis=0),
        ]
        inputs = ["xd", "wd"]
        if self.int32_bias:
            constants |= {"b": np.zeros(CHANNELS, np.int32), "bs": np.full(CHANNELS, 2e-5, np.float32)}
            nodes.append(helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], "bias", axis=0))
            inputs.append("bd")
        nodes.append(helper.make_node("Conv", inputs, ["y"], "conv", pads=[1] * 4))
        return graph_of([*nodes, *self.after], constants, "z" if self.after else "y", self.opset)


def graph_of(
    nodes: Sequence[NodeProto], constants: Mapping[str, ArrayLike], output: str = "y", opset: int = 20
) -> ModelProto:
    """x, float32 (1, 16, 16, 16), through `nodes` to `output`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        list(nodes),
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 16, 16])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _after_quantize(*nodes: NodeProto) -> ModelProto:
    """x -> Q -> `nodes`; they find a scale "s", zero points "z", INT8 weights "w"."""
    first = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quantize")
    constants = {"s": np.float32(0.02), "z": np.int8(0), "w": _WEIGHTS, "ws": np.float32(0.001)}
    return graph_of([first, *nodes], constants)


def _fourier() -> ModelProto:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["u"], "unsqueeze"),
        helper.make_node("DFT", ["u", "", "axis"], ["f"], "dft"),
        helper.make_node("ReduceSum", ["f", "last"], ["y"], "sum", keepdims=0),
    ]
    return graph_of(nodes, {"last": np.array([4]), "axis": np.int64(3)})


def _dynamic() -> ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "s", "z"], "dynamic"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["y"], "dequantize"),
    ]
    return graph_of(nodes, {})


def _computed_scale() -> ModelProto:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], "largest", keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quantize"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["y"], "dequantize"),
    ]
    return graph_of(nodes, {"z": np.int8(0)})


def _unknown() -> ModelProto:
    return graph_of([helper.make_node("Det", ["x"], ["y"], "det")], {})


def _antialias() -> ModelProto:
    resize = helper.make_node("Resize", ["x", "", "scales"], ["y"], "resize", mode="linear", antialias=1)
    return graph_of([resize], {"scales": np.array([1, 1, 0.5, 0.5], np.float32)})


def _qlinear_conv() -> ModelProto:
    inputs = ["xq", "s", "z", "w", "ws", "z", "s", "z"]
    return _after_quantize(
        helper.make_node("QLinearConv", inputs, ["yq"], "qlinear", pads=[1] * 4),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"], "dequantize"),
    )


def _conv_integer() -> ModelProto:
    return _after_quantize(
        helper.make_node("ConvInteger", ["xq", "w"], ["yi"], "integer", pads=[1] * 4),
        helper.make_node("Cast", ["yi"], ["y"], "cast", to=TensorProto.FLOAT),
    )


CLEAN: Callable[[], ModelProto] = QuantizedConv().model

REFUSED: Mapping[str, tuple[Callable[[], ModelProto], str, str]] = {
    "unknown operator": (_unknown, "unknown-operator", "det"),
    "asymmetric activation": (QuantizedConv(zero_point=np.int8(3)).model, "zero-point", "quantize"),
    "asymmetric weights": (
        QuantizedConv(weight_zero_point=np.full(CHANNELS, 2, np.int8)).model, "zero-point", "weights",
    ),
    "UINT8 activation": (QuantizedConv(zero_point=np.uint8(128)).model, "quantized-type", "quantize"),
    "INT16 activation": (QuantizedConv(zero_point=np.int16(0), opset=21).model, "quantized-type", "quantize"),
    "UINT8 weights": (
        QuantizedConv(
            weights=(_WEIGHTS.astype(np.int16) + 128).astype(np.uint8),
            weight_zero_point=np.full(CHANNELS, 128, np.uint8),
        ).model, "weight-type", "weights",
    ),
    "INT32 bias": (QuantizedConv(int32_bias=True).model, "int32-bias", "bias"),
    "QLinearConv": (_qlinear_conv, "integer-operator", "qlinear"),
    "ConvInteger": (_conv_integer, "integer-operator", "integer"),
    "dynamic": (_dynamic, "dynamic-quantization", "dynamic"),
    "zero scale": (QuantizedConv(scale=np.float32(0)).model, "scale-sign", "quantize"),
    "antialias": (_antialias, "resize-antialias", "resize"),
    "DFT": (_fourier, "fourier", "dft"),
}  # fmt: skip
"""What a TensorRT parser refuses: name -> how to build it, the rule that names it, the node."""

MISREAD: Mapping[str, tuple[Callable[[], ModelProto], str, str]] = {
    "UINT8 with zero point 0": (QuantizedConv(zero_point=np.uint8(0)).model, "quantized-type", "quantize"),
    "no zero point": (QuantizedConv(zero_point=None).model, "quantized-type", "quantize"),
    "scale a channel": (
        QuantizedConv(scale=np.full(CHANNELS, 0.02, np.float32), zero_point=np.zeros(CHANNELS, np.int8)).model,
        "per-channel-activation",
        "quantize",
    ),
    "computed scale": (_computed_scale, "computed-scale", "quantize"),
}
"""What TensorRT-RTX parses, and computes otherwise than ONNX says, or TensorRT's documentation excludes."""
