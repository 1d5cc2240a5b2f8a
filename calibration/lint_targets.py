"""Whether a graph builds for a target of ours, and in which precision it will run there.

Nothing is built here: the verdict is that of the rules of `unblur.calibration.lint`, which were compared with the
parser of TensorRT-RTX.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from unblur.calibration.graph_view import WEIGHTED
from unblur.calibration.lint import Finding, LintView, is_quantized

_TARGETS = {
    "TensorRT 10": "",
    "TensorRT-RTX": "; its INT8 convolutions write float32, so expect no gain over fp16",  # seen with 1.7
}


@dataclass(frozen=True)
class Verdict:
    """builds: whether the parser takes the graph. what: the precision that it will run in, or what is refused."""

    target: str
    builds: bool
    what: str

    def __str__(self) -> str:
        return f"{self.target}: {'builds' if self.builds else 'does not build'}, {self.what}"


def verdicts(model: ModelProto, findings: Sequence[Finding]) -> tuple[Verdict, ...]:
    """One for each target. findings: of `lint` on the same model."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = f"'{errors[0].node}': {errors[0].what}"
        return tuple(Verdict(target, False, first) for target in _TARGETS)
    view = LintView(model)
    layers = [node for node in view.nodes if node.op_type in WEIGHTED]
    int8 = sum(is_quantized(view, node) for node in layers)
    rest = "fp16" if _is_half(view) else "fp32"
    if int8 == 0:
        return tuple(Verdict(target, True, f"in {rest}") for target in _TARGETS)
    what = f"INT8 in {int8} of {len(layers)} layers with weights, {rest} in the rest"
    return tuple(Verdict(target, True, what + remark) for target, remark in _TARGETS.items())


def _is_half(view: LintView) -> bool:
    """Whether most float values of the weights, scales aside, are float16; Q/DQ graphs keep biases in float."""
    counts = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for tensor in view.initializers.values():
        if tensor.data_type in counts and tensor.dims:
            counts[tensor.data_type] += 1
    return counts[TensorProto.FLOAT16] > counts[TensorProto.FLOAT]
