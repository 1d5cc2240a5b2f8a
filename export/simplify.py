"""onnxsim, kept only when it is proven harmless."""

from dataclasses import dataclass

import numpy as np
import onnxsim
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from unblur.calibration.onnx_file import describe, onnx_bytes, spec_of, strip_provenance

MAX_DIFFERENCE = 1e-5  # of values in [0, 1]; float32 rounding in another order stays well below it
_SEED = 2
_SIZES_IN_MULTIPLES = ((2, 3), (5, 4))


@dataclass(frozen=True)
class Simplification:
    """`model` is the smaller graph if it was `kept`, else the one that was given. reason: for people."""

    model: ModelProto
    kept: bool
    reason: str


def simplify(model: ModelProto) -> Simplification:
    """Fold constants and drop dead nodes with onnxsim.

    Its result is taken only if it has no more nodes and no more bytes (it can inflate repeated blocks,
    onnxsim#633) and gives the same image within `MAX_DIFFERENCE` on random input of two sizes.
    """
    simplified, _ = onnxsim.simplify(model)
    strip_provenance(simplified)
    describe(simplified, spec_of(model), "fp32")
    size, new_size = _size(model), _size(simplified)
    change = f"{size[0]} -> {new_size[0]} nodes, {size[1]} -> {new_size[1]} bytes"
    if new_size[0] > size[0] or new_size[1] > size[1]:
        return Simplification(model, False, f"onnxsim makes it larger ({change})")
    difference = max_difference(model, simplified)
    if not difference <= MAX_DIFFERENCE:
        return Simplification(model, False, f"onnxsim changes the image by {difference:.2g}")
    return Simplification(simplified, True, f"onnxsim: {change}, largest difference {difference:.2g}")


def max_difference(model: ModelProto, other: ModelProto) -> float:
    """Largest absolute difference of two graphs on seeded random images of two sizes; NaN if either gives NaN."""
    multiple = spec_of(model).multiple_of
    rng = np.random.default_rng(_SEED)
    differences = []
    for rows, columns in _SIZES_IN_MULTIPLES:
        images = rng.random((1, 3, rows * multiple, columns * multiple), np.float32)
        differences.append(np.abs(_run(model, images) - _run(other, images)).max())
    return float(np.max(differences))


def _run(model: ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(onnx_bytes(model), options, providers=["CPUExecutionProvider"])
    restored: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return restored


def _size(model: ModelProto) -> tuple[int, int]:
    return len(model.graph.node), model.ByteSize()
