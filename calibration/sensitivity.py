"""Which layers and which tensors INT8 is costly for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from unblur.calibration.onnx_file import onnx_bytes
from unblur.calibration.search import Evaluate
from unblur.runtime.calibration_table import TensorRange
from unblur.runtime.frames import Batch

_LEVELS = 127
_SIGNAL, _NOISE = ".signal", ".noise"


@dataclass(frozen=True)
class LayerCost:
    """A layer is a weight: all the steps of a recursion that use it.

    macs_share: of all convolutions, 0 to 1. alone_db: lost if it alone is INT8, mean over the trials.
    spared_db: won back if it alone is float and all other candidates are INT8. int8: whether it is in the result.
    """

    layer: str
    macs_share: float
    alone_db: float
    spared_db: float
    int8: bool


@dataclass(frozen=True)
class Sensitivity:
    """sqnr_db: tensor read in INT8 -> its signal to quantisation noise, in dB."""

    layers: tuple[LayerCost, ...]
    sqnr_db: Mapping[str, float]


def layer_costs(
    shares: Mapping[str, float],
    evaluate: Evaluate,
    chosen: frozenset[str],
    progress: Callable[[], object] | None = None,
) -> tuple[LayerCost, ...]:
    """Quantise each layer alone, and all but each.

    shares: candidate -> its share of all multiply-accumulates. chosen: those that are INT8 in the end. progress:
        called once a layer.
    """
    everything = frozenset(shares)
    costs = []
    for layer, macs_share in shares.items():
        alone = evaluate(frozenset({layer})).delta_db
        rest = everything - {layer}
        spared = (evaluate(rest).delta_db if rest else 0.0) - evaluate(everything).delta_db
        costs.append(LayerCost(layer, macs_share, -alone, spared, layer in chosen))
        if progress is not None:
            progress()
    return tuple(costs)


def sqnr_db(model: ModelProto, ranges: Mapping[str, TensorRange], batches: Iterable[Batch]) -> dict[str, float]:
    """Signal to quantisation noise of each activation, in dB, over all the batches; inf if INT8 holds it exactly.

    Both powers are summed inside the fp32 graph, so that two numbers a tensor leave it. model: fp32.
    """
    session = InferenceSession(onnx_bytes(_with_powers(model, ranges)), providers=["CPUExecutionProvider"])
    feed = model.graph.input[0].name
    powers = sum(np.array(session.run(None, {feed: batch}), np.float64) for batch in batches)
    signal, noise = np.reshape(powers, (-1, 2)).T
    ratio = np.divide(signal, noise, out=np.full_like(signal, np.inf), where=noise > 0)
    return dict(zip(ranges, (10 * np.log10(ratio)).tolist(), strict=True))


def _with_powers(model: ModelProto, ranges: Mapping[str, TensorRange]) -> ModelProto:
    """A copy of the graph whose outputs are the energy of each tensor, and of what INT8 makes wrong of it."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.output[:]
    zero = ".int8_zero"
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    for name, seen in ranges.items():
        scale, integer, rounded, error = (f"{name}.{part}" for part in ("int8_scale", "int8", "rounded", "error"))
        graph.initializer.append(numpy_helper.from_array(np.array(seen.amax / _LEVELS, np.float32), scale))
        graph.node.append(helper.make_node("QuantizeLinear", [name, scale, zero], [integer]))
        graph.node.append(helper.make_node("DequantizeLinear", [integer, scale, zero], [rounded]))
        graph.node.append(helper.make_node("Sub", [name, rounded], [error]))
        for source, suffix in ((name, _SIGNAL), (error, _NOISE)):
            graph.node.append(helper.make_node("ReduceSumSquare", [source], [name + suffix], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, []))
    return copy
