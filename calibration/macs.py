"""Multiply-accumulates of the convolutions: by them a share of INT8 is told."""

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnxruntime import InferenceSession

from unblur.calibration.onnx_file import onnx_bytes, spec_of
from unblur.calibration.placement import CONVOLUTIONS
from unblur.runtime.frames import Padding

_SHAPE = ".shape"


def layer_macs(model: ModelProto, size_hw: tuple[int, int] = (256, 256)) -> dict[str, int]:
    """Weight -> multiply-accumulates of all convolutions with it, for one picture of `size_hw`, padded.

    Sizes are those that ONNX Runtime finds when it runs: ONNX's shape inference loses them behind a pixel
    unshuffle, whose sizes are quotients. 256 x 256 takes a fraction of a second, and shares hardly depend on it.
    """
    padding = Padding.to_multiple(size_hw, spec_of(model).multiple_of)
    convolutions = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    tensors = list(dict.fromkeys(name for node in convolutions for name in (_counted(node), node.input[1])))
    session = InferenceSession(onnx_bytes(_with_shapes(model, tensors)), providers=["CPUExecutionProvider"])
    image = np.zeros((1, 3, *padding.padded_hw), np.float32)
    shapes = dict(zip(tensors, session.run(None, {model.graph.input[0].name: image}), strict=True))
    macs: dict[str, int] = {}
    for node in convolutions:
        batch, _, *pixels = shapes[_counted(node)].tolist()
        per_pixel = int(np.prod(shapes[node.input[1]]))
        macs[node.input[1]] = macs.get(node.input[1], 0) + batch * int(np.prod(pixels)) * per_pixel
    return macs


def _counted(node: NodeProto) -> str:
    """The tensor at each of whose pixels all weights are applied once."""
    return str(node.output[0] if node.op_type == "Conv" else node.input[0])


def _with_shapes(model: ModelProto, tensors: Collection[str]) -> ModelProto:
    """A copy of the graph whose outputs are the shapes of `tensors`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in tensors:
        copy.graph.node.append(helper.make_node("Shape", [name], [name + _SHAPE]))
        copy.graph.output.append(helper.make_tensor_value_info(name + _SHAPE, TensorProto.INT64, None))
    return copy
