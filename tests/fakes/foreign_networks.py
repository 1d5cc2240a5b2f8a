"""Small ONNX files as other people write them: no model spec in them, and each with one trait of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, save_model

Weights = NDArray[np.floating]
OPSET = 18


class Graph:
    """Nodes and weights of a graph that is being written; deterministic."""

    def __init__(self, dtype: type[np.floating] = np.float32) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[np.generic]] = {}
        self._rng = np.random.default_rng(7)
        self._dtype = dtype

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: object, dtype: type[np.generic] | None = None) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype or self._dtype)
        return name

    def conv(self, source: str, inputs: int, outputs: int, *, gain: float = 0.02, output: str = "") -> str:
        weight = self._rng.normal(0, gain, (outputs, inputs, 3, 3))
        return self.add("Conv", [source, self.constant(weight)], output, pads=[1, 1, 1, 1])

    def model(
        self,
        shapes: dict[str, Sequence[object]],
        outputs: dict[str, Sequence[object]],
        float_type: int = TensorProto.FLOAT,
        opset: int = OPSET,
    ) -> ModelProto:
        def values(named: dict[str, Sequence[object]]) -> list[object]:
            return [helper.make_tensor_value_info(name, float_type, list(shape)) for name, shape in named.items()]

        weights = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "foreign", values(shapes), values(outputs), weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


FREE = ("n", 3, "h", "w")


def plain(channels: int = 3) -> ModelProto:
    """Adds what two convolutions make of the image to it; sees 2 pixels far."""
    graph = Graph()
    hidden = graph.add("Relu", [graph.conv("image", channels, 4)])
    graph.add("Add", ["image", graph.conv(hidden, 4, channels)], "restored")
    shape = ("n", channels, "h", "w")
    return graph.model({"image": shape}, {"restored": shape})


def grey() -> ModelProto:
    """As `plain` for one channel."""
    return plain(1)


def residual() -> ModelProto:
    """Gives what is to be added to the image."""
    graph = Graph()
    graph.conv(graph.add("Relu", [graph.conv("image", 3, 4)]), 4, 3, output="correction")
    return graph.model({"image": FREE}, {"correction": FREE})


def layer_norm() -> ModelProto:
    """NAFNet's block: layer normalisation over channels, a gate of two halves; sides that are multiples of 1."""
    graph = Graph()
    features = graph.conv("image", 3, 4, gain=0.2)
    mean = graph.add("ReduceMean", [features, graph.constant([1], np.int64)], keepdims=1)
    centred = graph.add("Sub", [features, mean])
    variance = graph.add("ReduceMean", [graph.add("Mul", [centred, centred]), graph.constant([1], np.int64)])
    deviation = graph.add("Sqrt", [graph.add("Add", [variance, graph.constant(1e-6)])])
    normal = graph.add("Div", [centred, deviation])
    halves = [
        graph.add("Slice", [normal, graph.constant([a], np.int64), graph.constant([b], np.int64), axis])
        for a, b, axis in [(0, 2, graph.constant([1], np.int64)), (2, 4, graph.constant([1], np.int64))]
    ]
    graph.add("Add", ["image", graph.conv(graph.add("Mul", halves), 2, 3)], "restored")
    return graph.model({"image": FREE}, {"restored": FREE})


def three_outputs() -> ModelProto:
    """MIMO-UNet's ends: the image at a quarter, at half and at full size; sides that are multiples of 4."""
    graph = Graph()
    sizes = {"quarter": 4, "half": 2}
    restored = graph.add("Add", ["image", graph.conv("image", 3, 3)], "full")
    for name, factor in sizes.items():
        graph.add("AveragePool", [restored], f"{name}_pool", kernel_shape=[factor] * 2, strides=[factor] * 2)
        graph.add("Identity", [f"{name}_pool"], name)
    graph.add("SpaceToDepth", ["image"], "grid", blocksize=4)  # refuses other sides
    shapes = {"quarter": ("n", 3, "h4", "w4"), "half": ("n", 3, "h2", "w2"), "full": FREE}
    return graph.model({"image": FREE}, shapes)


def signed() -> ModelProto:
    """Takes and gives values in [-1, 1]: the output is clipped there."""
    graph = Graph()
    sum_ = graph.add("Add", ["image", graph.conv("image", 3, 3)])
    graph.add("Clip", [sum_, graph.constant(-1.0), graph.constant(1.0)], "restored")
    return graph.model({"image": FREE}, {"restored": FREE})


def fixed(height: int = 64, width: int = 96) -> ModelProto:
    """One size only, one image at a time."""
    graph = Graph()
    graph.add("Add", ["image", graph.conv("image", 3, 3)], "restored")
    shape = (1, 3, height, width)
    return graph.model({"image": shape}, {"restored": shape})


def twice() -> ModelProto:
    """Super-resolution: the output is twice as large."""
    graph = Graph()
    features = graph.conv("image", 3, 12)
    repeated = graph.add("Concat", ["image"] * 4, axis=1)
    depth = graph.add("Add", [repeated, features])
    graph.add("DepthToSpace", [depth], "restored", blocksize=2, mode="DCR")
    return graph.model({"image": FREE}, {"restored": ("n", 3, "h2", "w2")})


def global_pooling() -> ModelProto:
    """Every pixel sees the mean of all."""
    graph = Graph()
    gate = graph.add("Sigmoid", [graph.add("GlobalAveragePool", [graph.conv("image", 3, 3)])])
    graph.add("Add", ["image", graph.add("Mul", [graph.conv("image", 3, 3), gate])], "restored")
    return graph.model({"image": FREE}, {"restored": FREE})


def half_floats() -> ModelProto:
    """float16 from end to end."""
    graph = Graph(np.float16)
    graph.add("Add", ["image", graph.conv("image", 3, 3)], "restored")
    return graph.model({"image": FREE}, {"restored": FREE}, TensorProto.FLOAT16)


def multiple_of_8() -> ModelProto:
    """Refuses sides that are not multiples of 8; sees its own block of 8 x 8."""
    graph = Graph()
    blocks = graph.add("SpaceToDepth", ["image"], blocksize=8)
    graph.add("DepthToSpace", [blocks], "restored", blocksize=8, mode="DCR")
    return graph.model({"image": FREE}, {"restored": FREE})


def affine(gain: Sequence[float], offset: Sequence[float]) -> ModelProto:
    """Each channel times `gain` plus `offset`: shows which values a network is given."""
    graph = Graph()
    product = graph.add("Mul", ["image", graph.constant(np.reshape(gain, (1, 3, 1, 1)))])
    graph.add("Add", [product, graph.constant(np.reshape(offset, (1, 3, 1, 1)))], "restored")
    return graph.model({"image": FREE}, {"restored": FREE})


def not_finite() -> ModelProto:
    """Gives NaN where the image is black: 0 / 0."""
    graph = Graph()
    quotient = graph.add("Div", ["image", "image"])
    graph.add("Mul", [quotient, "image"], "restored")
    return graph.model({"image": FREE}, {"restored": FREE})


def classifier() -> ModelProto:
    """Ten numbers of an image."""
    graph = Graph()
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [graph.conv("image", 3, 10)])])
    graph.add("Identity", [pooled], "logits")
    return graph.model({"image": FREE}, {"logits": ("n", 10)})


def detector() -> ModelProto:
    """Boxes and scores at a sixteenth of the size."""
    graph = Graph()
    small = graph.add("AveragePool", ["image"], kernel_shape=[16, 16], strides=[16, 16])
    graph.conv(small, 3, 4, output="boxes")
    graph.conv(small, 3, 1, output="scores")
    return graph.model({"image": FREE}, {"boxes": ("n", 4, "a", "b"), "scores": ("n", 1, "a", "b")})


def channels_last() -> ModelProto:
    """As TensorFlow writes it: (N, H, W, C)."""
    graph = Graph()
    graph.add("Identity", ["image"], "restored")
    return graph.model({"image": ("n", "h", "w", 3)}, {"restored": ("n", "h", "w", 3)})


def unknown_operator() -> ModelProto:
    """Has a node that nothing here can execute."""
    graph = Graph()
    graph.add("DeformableConvolution", ["image"], "restored", domain="com.example")
    model = graph.model({"image": FREE}, {"restored": FREE})
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def write(make: Callable[[], ModelProto], folder: Path, *, external: bool = False) -> Path:
    """The file `NAME.onnx` of one of the functions above; external: its weights in `NAME.onnx.data`."""
    path = folder / f"{make.__name__}.onnx"
    model = make()
    save_model(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path
