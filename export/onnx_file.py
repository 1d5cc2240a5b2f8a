"""A network -> an .onnx file, written only if it computes what torch computes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unblur.calibration.onnx_model import check_onnx_name
from unblur.export.fp16 import fp16_from_fp32
from unblur.export.onnx_from_network import onnx_from_network, simplify
from unblur.export.torch_runner import TorchRunner
from unblur.runtime.errors import ParityError
from unblur.runtime.files import atomic_file
from unblur.runtime.model.golden import golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.parity import Hop, compare
from unblur.train.networks import DeblurringNetwork


@dataclass(frozen=True)
class ExportedOnnx:
    """A file that was written. parity: of the file against torch. simplification: what onnxsim changed, or why its
    result was not kept.
    """

    path: Path
    nodes: int
    bytes: int
    parity: Hop
    simplification: str


def export_onnx(
    network: DeblurringNetwork, *, output: Path, precision: Literal["fp32", "fp16"] = "fp32"
) -> ExportedOnnx:
    """Write `network` as ONNX for any batch and any height and width that are multiples of `spec.multiple_of`.

    Raises BadInput if `output` does not end in .onnx or cannot be written, ParityError if the file does not compute
    what torch computes; then nothing is written.
    """
    check_onnx_name(output)
    with atomic_file(output) as temporary:
        simplification = simplify(onnx_from_network(network))
        model = simplification.model if precision == "fp32" else fp16_from_fp32(simplification.model)
        temporary.write_bytes(model.data)
        parity = _compare_with_torch(network, temporary)
    return ExportedOnnx(output, len(model.graph.node), output.stat().st_size, parity, simplification.reason)


def _compare_with_torch(network: DeblurringNetwork, file: Path) -> Hop:
    with TorchRunner(network) as reference, OnnxRunner(file) as candidate:
        parity = compare(reference, candidate, [golden_frame()], name=f"torch -> {candidate.precision}")
    if parity.passed is False:
        raise ParityError(f"the export differs from torch: {parity.reason}; nothing was written")
    return parity
