"""A network -> an .onnx file, written only if it computes what torch computes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from unblur.calibration.onnx_model import check_onnx_name
from unblur.export.fp16 import fp16_from_fp32
from unblur.export.source_model import ModuleSource, NetworkSource, SourceModel
from unblur.runtime.errors import BadInput, ParityError
from unblur.runtime.files import atomic_file
from unblur.runtime.model.golden import golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.parity import Hop, compare
from unblur.runtime.spec import ModelSpec
from unblur.train.networks import DeblurringNetwork


@dataclass(frozen=True)
class ExportedOnnx:
    """A file that was written. parity: of the file against torch. simplification: what onnxsim changed, or why its
    result was not kept.
    """

    path: Path
    spec: ModelSpec
    nodes: int
    bytes: int
    parity: Hop
    simplification: str


def export_onnx(
    network: nn.Module,
    spec: ModelSpec | None = None,
    *,
    output: Path,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> ExportedOnnx:
    """Write a network as ONNX for any batch and any height and width that are multiples of `spec.multiple_of`.

    network: one of unblur's, or any module from float32 images (N, 3, H, W) to restored ones. spec: of such a
    module; without one it is found by inspection, see `inspect_onnx`.
    Raises BadInput if torch cannot export the network or `output` cannot be written, SpecMismatch if no spec is
    found, ParityError if the file does not compute what torch computes; then nothing is written.
    """
    return write_source(_source(network, spec), output, precision)


def write_source(source: SourceModel, output: Path, precision: Literal["fp32", "fp16"] = "fp32") -> ExportedOnnx:
    """As `export_onnx`, from what `find_source` found."""
    check_onnx_name(output)
    steps = source.spec.steps
    with atomic_file(output) as temporary:
        fp32 = source.onnx(steps)
        model = fp32 if precision == "fp32" else fp16_from_fp32(fp32)
        temporary.write_bytes(model.data)
        parity = _compare_with_torch(source, temporary)
    return ExportedOnnx(
        output, model.spec, len(model.graph.node), output.stat().st_size, parity, source.simplification
    )


def _source(network: nn.Module, spec: ModelSpec | None) -> SourceModel:
    if isinstance(network, DeblurringNetwork):
        return NetworkSource(network)
    return ModuleSource(network, type(network).__name__, spec)


def _compare_with_torch(source: SourceModel, file: Path) -> Hop:
    reference = source.reference(source.spec.steps)
    if reference is None:
        raise BadInput(f"{source.name} is an ONNX file already; give a network, or use `unblur deploy`")
    with reference, OnnxRunner(file) as candidate:
        parity = compare(reference, candidate, [golden_frame()], name=f"torch -> {candidate.precision}")
    if parity.passed is False:
        raise ParityError(f"the export differs from torch: {parity.reason}; nothing was written")
    return parity
