"""The ranges of activations, image by image.

Minimum and maximum are taken inside the graph, so two numbers a tensor leave it and memory does not depend on how
many images there are. ONNX Runtime's own calibrators keep the outputs of all images.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, helper
from onnxruntime import InferenceSession

from unblur.calibration.onnx_file import onnx_bytes
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import Batch

_LOWEST, _HIGHEST = ".lowest", ".highest"


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value a tensor took."""

    lowest: float
    highest: float

    def union(self, other: "Range") -> "Range":
        """The range that holds both."""
        return Range(min(self.lowest, other.lowest), max(self.highest, other.highest))

    @property
    def finite(self) -> bool:
        return math.isfinite(self.lowest) and math.isfinite(self.highest)


def observe_minmax(
    model: ModelProto,
    tensors: Sequence[str],
    batches: Iterable[Batch],
    progress: Callable[[], object] | None = None,
) -> dict[str, Range]:
    """Run an fp32 graph on every batch and give the range of each of `tensors` over all of them.

    batches: float32 (N, 3, H, W), read one at a time, sizes may differ. progress: called once
        a batch.
    Raises CalibrationError if there are none, or if a tensor is not finite.
    """
    session = InferenceSession(onnx_bytes(_with_ranges(model, tensors)), providers=["CPUExecutionProvider"])
    feed = model.graph.input[0].name
    ranges: dict[str, Range] = {}
    for number, batch in enumerate(batches, start=1):
        for name, seen in _observe(session, tensors, {feed: batch}).items():
            if not seen.finite:
                raise CalibrationError(
                    f"tensor '{name}' is not finite on calibration picture {number}; "
                    "the weights are damaged or the training diverged"
                )
            ranges[name] = seen.union(ranges.get(name, seen))
        if progress is not None:
            progress()
    if not ranges:
        raise CalibrationError("no calibration pictures were given; INT8 needs some to measure the ranges")
    return ranges


def _observe(session: InferenceSession, tensors: Sequence[str], feeds: dict[str, Batch]) -> dict[str, Range]:
    outputs = [name + suffix for name in tensors for suffix in (_LOWEST, _HIGHEST)]
    values = [float(value) for value in session.run(outputs, feeds)]
    return {
        name: Range(*pair) for name, pair in zip(tensors, zip(values[::2], values[1::2], strict=True), strict=True)
    }


def _with_ranges(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """A copy of the graph whose outputs are the minimum and the maximum of each tensor."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in tensors:
        for suffix, operator in ((_LOWEST, "ReduceMin"), (_HIGHEST, "ReduceMax")):
            copy.graph.node.append(helper.make_node(operator, [name], [name + suffix], keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, []))
    return copy
