"""A miniature of LPRN in ONNX: `steps` times the same two convolutions on a 1/4 grid, added to the input."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Pooling, Precision

GRID = 4
WIDTH = 8

Defect = Literal["identity", "one step", "zeroed layer", "neighbour's weights", "swapped channel", "shifted"]


@dataclass(frozen=True)
class TinyNetwork:
    """Builds the ONNX graph; `scale` multiplies the residual, so that two networks can differ a little.

    defect: what is wrong with the graph, although its spec says nothing of it.
    """

    precision: Precision = "fp32"
    steps: int = 2
    pooling: Pooling = "none"
    scale: float = 1.0
    defect: Defect | None = None

    @property
    def spec(self) -> ModelSpec:
        """One step sees two 3 x 3 neighbourhoods of the grid; a grid cell is 4 pixels."""
        radius = 0 if self.pooling == "global" else 2 * GRID * self.steps + GRID
        return ModelSpec("lprn", "tiny", self.steps, multiple_of=16, receptive_field=radius, pooling=self.pooling)

    def write(self, path: Path) -> Path:
        graph = _Graph(self.precision, seed=1000 if self.defect == "neighbour's weights" else 0)
        inner_gain = 0.0 if self.defect == "zeroed layer" else 1.0
        outer_gain = 0.0 if self.defect == "identity" else 0.2 * self.scale
        features = graph.add("SpaceToDepth", ["blurred"], blocksize=GRID)
        state = features
        for _ in range(1 if self.defect == "one step" else self.steps):
            hidden = graph.add("Relu", [graph.conv("inner", state, 3 * GRID**2, WIDTH, inner_gain)])
            if self.pooling == "global":
                hidden = graph.add("Mul", [hidden, graph.add("GlobalAveragePool", [hidden])])
            residual = graph.conv("outer", hidden, WIDTH, 3 * GRID**2, gain=outer_gain)
            state = graph.add("Add", [features, residual])
        output = graph.add("DepthToSpace", [state], blocksize=GRID)
        if self.defect == "swapped channel":
            output = graph.add("Gather", [output, graph.store("order", np.array([2, 1, 0]))], axis=1)
        if self.defect == "shifted":
            output = graph.shifted(output)
        graph.add("Identity", [output], output="restored")
        model = graph.model()
        for key, value in {SPEC_KEY: self.spec.to_json(), PRECISION_KEY: self.precision}.items():
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, path)
        return path


class _Graph:
    def __init__(self, precision: Precision, seed: int) -> None:
        self.precision = precision
        self.seed = seed
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def store(self, name: str, values: NDArray[np.generic]) -> str:
        self.weights[name] = numpy_helper.from_array(values, name)
        return name

    def conv(self, name: str, source: str, channels_in: int, channels_out: int, gain: float = 1.0) -> str:
        """A 3 x 3 convolution in the precision of the graph, float32 outside."""
        rng = np.random.default_rng(len(name) + channels_in + self.seed)
        shape = (channels_out, channels_in, 3, 3)
        values = (gain * rng.standard_normal(shape) / np.sqrt(9 * channels_in)).astype(np.float32)
        if self.precision == "fp16":
            weight = self.store(name, values.astype(np.float16))
            half = self.add("Cast", [source], to=TensorProto.FLOAT16)
            return self.add("Cast", [self.add("Conv", [half, weight], pads=[1] * 4)], to=TensorProto.FLOAT)
        if self.precision == "int8":
            source = self._quantized(source)
            weight = self._quantized_weight(name, values)
        else:
            weight = self.store(name, values)
        return self.add("Conv", [source, weight], pads=[1] * 4)

    def shifted(self, source: str) -> str:
        """By one pixel to the right; the first column takes the place of none."""
        zero, minus_one = self.store("first", np.array([0])), self.store("last", np.array([-1]))
        one, width = self.store("second", np.array([1])), self.store("width", np.array([3]))
        column = self.add("Slice", [source, zero, one, width])
        return self.add("Concat", [column, self.add("Slice", [source, zero, minus_one, width])], axis=3)

    def _quantized(self, source: str) -> str:
        scale = self.store("activation_scale", np.float32(2 / 127).reshape(()))
        zero = self.store("zero", np.int8(0).reshape(()))
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [source, scale, zero]), scale, zero])

    def _quantized_weight(self, name: str, values: NDArray[np.float32]) -> str:
        step = max(np.abs(values).max(), 1e-6) / 127
        weight = self.store(name, np.rint(values / step).astype(np.int8))
        scale = self.store(f"{name}_scale", np.float32(step).reshape(()))
        return self.add("DequantizeLinear", [weight, scale, self.store("zero", np.int8(0).reshape(()))])

    def model(self) -> onnx.ModelProto:
        axes = ["batch", 3, "height", "width"]
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("blurred", TensorProto.FLOAT, axes)],
            [helper.make_tensor_value_info("restored", TensorProto.FLOAT, axes)],
            list(self.weights.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model
