"""Where a model runs: on an engine of this device, else ONNX Runtime on a GPU, else on the CPU.

For a bundle the choice is told in one line of the log, with the reason: "lprn-s fp32 runs on cpu (onnxruntime
1.31.1): it has no engine".
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime

from unblur.runtime.bundle import Bundle, read_bundle
from unblur.runtime.engine.choice import FASTEST_FIRST, open_engine
from unblur.runtime.engine.runner import EngineRunner
from unblur.runtime.errors import BadInput, DeviceError, EngineMismatch, SpecMismatch
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.runner import Device, Precision, Runner

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What is asked for; the fields are those of `open_runner`."""

    precision: Precision | Literal["auto"]
    steps: int | None
    threads: int | None
    graph_optimization: bool
    device: Device
    quiet: bool = False


def open_model(path: Path, wish: Wish) -> Runner:
    """Open a bundle, an .onnx file or an .engine file; raises what `open_runner` raises."""
    if path.is_dir():
        return _open_bundle(read_bundle(path), wish)
    if path.suffix != ".engine":
        return _checked(path, _open_onnx(path, wish), wish.precision, wish.steps)
    if wish.device not in ("auto", "tensorrt"):
        raise BadInput(f"{path} is a TensorRT engine, which does not run on {wish.device}; give its bundle")
    return _checked(path, EngineRunner(path), wish.precision, wish.steps)


def _open_bundle(bundle: Bundle, wish: Wish) -> Runner:
    """The variant that is asked for, in the fastest form that runs here and is right."""
    variant = bundle.variant("fp32" if wish.precision == "auto" else wish.precision, wish.steps)
    reasons: list[str] = []
    if wish.device in ("auto", "tensorrt") and wish.graph_optimization:
        precisions = FASTEST_FIRST if wish.precision == "auto" else (wish.precision,)
        engine, reasons = open_engine(bundle, precisions, variant.steps)
        if engine is not None:
            _tell(bundle, engine, wish, reasons[-1] if reasons else "its engine fits this device")
            return engine
    reason = reasons[0] if reasons else "it has no engine"
    if wish.device == "tensorrt":
        raise EngineMismatch(f"{bundle.path} does not run on TensorRT: {reason}; see `unblur build`")
    path = bundle.path / variant.file
    runner = _checked(path, _open_onnx(path, wish), variant.precision, variant.steps)
    _tell(bundle, runner, wish, reason if wish.device == "auto" else f"asked for {wish.device}")
    return runner


def _open_onnx(path: Path, wish: Wish) -> Runner:
    """On the GPU if ONNX Runtime can, unless the CPU is asked for or a reference, which is the CPU's."""
    if wish.device == "tensorrt":
        raise BadInput(f"{path} is no engine; make one with `unblur build`, or give --device cuda or cpu")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wish.device == "cuda" or (wish.device == "auto" and wish.graph_optimization and has_cuda):
        try:
            return OnnxRunner(path, threads=wish.threads, graph_optimization=wish.graph_optimization, device="cuda")
        except DeviceError as error:
            if wish.device == "cuda":
                raise
            _log.warning("ONNX Runtime does not run on the GPU: %s", error)
    return OnnxRunner(path, threads=wish.threads, graph_optimization=wish.graph_optimization)


def _checked(path: Path, runner: Runner, precision: Precision | Literal["auto"], steps: int | None) -> Runner:
    """The runner if it is what is asked for; else it is closed, and SpecMismatch raised."""
    problem = ""
    if precision not in ("auto", runner.precision):
        problem = f"is {runner.precision}, asked for {precision}; give a bundle that has both"
    elif steps not in (None, runner.spec.steps):
        problem = f"runs {runner.spec.steps} steps, asked for {steps}; export it again with --steps {steps}"
    if problem:
        runner.close()
        raise SpecMismatch(f"{path} {problem}")
    return runner


def _tell(bundle: Bundle, runner: Runner, wish: Wish, reason: str) -> None:
    if not wish.quiet:
        _log.info("%s %s runs on %s: %s", bundle.manifest.name, runner.precision, runner.device, reason)
